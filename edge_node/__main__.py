"""An edge node as a process: `python -m edge_node [CONFIG.toml]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.errors import FoothillError
from edge_node.assembly import build
from edge_node.config import Config
from edge_node.enrol import load_enrolment
from runtime.links.access.admission import HOW_TO_ASK
from runtime.links.http.exposure import check_exposure
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.process.settings import SettingsError, load
from runtime.links.process.state_dir import held


async def run(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """The whole life of a node: serve what it has, then listen to its fleet. Raises SettingsError."""
    state_dir = Path(config.state_dir)
    protected = config.auth.asks or bool(config.https.client_ca_file)
    check_exposure(config.host, name="edge node", protected=protected, insecure=config.insecure, remedy=HOW_TO_ASK)
    tls = listener_context(config.https)
    with _explained(), held(state_dir):
        enrolment = load_enrolment(state_dir)
        node = await build(config, enrolment, state_dir)
        await node.updater.restore()
        await serve_app(node.app, config.host, config.port, name=enrolment.node, ready=ready, tls=tls)


def main(path: str | None = None, *, insecure: bool = False) -> None:
    """`insecure` as the key of the configuration."""
    configure_logging()
    run_loop(_run_configured(Path(path) if path else None, insecure))


async def _run_configured(path: Path | None, insecure: bool) -> None:
    config = load(path, Config)
    await run(msgspec.structs.replace(config, insecure=config.insecure or insecure))


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps a node from starting is a matter of its settings, state or enrolment."""
    try:
        yield
    except FoothillError as error:
        raise SettingsError(error.message) from error


if __name__ == "__main__":
    main(*sys.argv[1:2])
