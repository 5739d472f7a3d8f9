"""An edge node as a process: `python -m edge_node [CONFIG.toml]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from contracts.errors import FoothillError
from edge_node.alone import build_alone
from edge_node.assembly import Node, build
from edge_node.cameras.part import CamerasPart
from edge_node.config import Config
from edge_node.enrol import FILE as ENROLMENT
from edge_node.enrol import load_enrolment
from runtime.links.access.admission import HOW_TO_ASK
from runtime.links.http.exposure import check_exposure
from runtime.links.http.https import listener_context
from runtime.links.http.serve import configure_logging, run_loop, serve_app
from runtime.links.process.settings import SettingsError, load
from runtime.links.process.state_dir import held

_SWITCH_S = 0.0005
"""For so long a thread may compute while another waits for the interpreter: Python's own 5 ms are half of what a whole
picture takes, and whoever reads a camera or answers a call waits for them several times."""


async def run(config: Config, *, ready: Callable[[str], None] | None = None, file: Path | None = None) -> None:
    """The whole life of a node: serve what it has, watch its cameras, listen to its fleet. Of its configuration `file`
    the cameras are read again whenever it changes. Raises SettingsError."""
    sys.setswitchinterval(_SWITCH_S)
    state_dir = Path(config.state_dir)
    protected = config.auth.asks or bool(config.https.client_ca_file)
    check_exposure(config.host, name="edge node", protected=protected, insecure=config.insecure, remedy=HOW_TO_ASK)
    tls = listener_context(config.https)
    with _explained(), held(state_dir):
        base = file.parent if file is not None else Path()
        if config.alone is not None:
            _check_alone(state_dir)
            node, broker_url = await build_alone(config, config.alone, state_dir, base), config.broker_url
        else:
            enrolment = load_enrolment(state_dir)
            node, broker_url = await build(config, enrolment, state_dir), config.broker_url or enrolment.broker_url
        if config.cameras or file is not None:
            part = _cameras(config, node, broker_url, state_dir, base, file)
            part.live_in(node.app, allowed_hosts=None if protected else config.allowed_hosts)
        await node.restore()
        await serve_app(node.app, config.host, config.port, name=node.settings.node, ready=ready, tls=tls)


def _cameras(
    config: Config, node: Node, broker_url: str, state_dir: Path, base: Path, file: Path | None
) -> CamerasPart:
    return CamerasPart(
        node.settings.node,
        config.cameras,
        node.pipelines,
        state_dir=state_dir,
        broker_url=broker_url,
        tls=config.tls,
        registry=node.telemetry.registry,
        admin_token=node.settings.admin_token,
        snapshots=config.snapshots,
        broker_region=config.broker_region,
        base=base,
        file=file,
        recording=config.recording,
        webhooks=config.webhooks,
        home_assistant=config.home_assistant,
        read_file=lambda: load(file, Config).cameras,
    )


def _check_alone(state_dir: Path) -> None:
    if (state_dir / ENROLMENT).exists():
        raise SettingsError(
            f"[alone] is for a node without a fleet, and the one in {state_dir} has joined one: take the table out, or "
            "give this node a state_dir of its own."
        )


def main(path: str | None = None, *, insecure: bool = False) -> None:
    """`insecure` as the key of the configuration."""
    configure_logging()
    run_loop(_run_configured(Path(path) if path else None, insecure))


async def _run_configured(path: Path | None, insecure: bool) -> None:
    config = load(path, Config)
    await run(msgspec.structs.replace(config, insecure=config.insecure or insecure), file=path)


@contextmanager
def _explained() -> Iterator[None]:
    """What keeps a node from starting is a matter of its settings, state or enrolment."""
    try:
        yield
    except FoothillError as error:
        raise SettingsError(error.message) from error


if __name__ == "__main__":
    main(*sys.argv[1:2])
