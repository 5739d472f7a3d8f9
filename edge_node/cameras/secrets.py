"""Which passwords a camera may have that the API has added: those that somebody on the box has laid out for it.

Its password goes wherever its `url` says. A key of the API would else read any first line of a file, and any variable,
that the node's process can.
"""

from __future__ import annotations

from pathlib import Path

from contracts.errors import FoothillError
from edge_node.cameras.config import CameraConfig

DIRECTORY = "secrets"
PREFIX = "CAMERA_"


def check_lent(config: CameraConfig, state_dir: Path) -> None:
    """Raises FoothillError `bad_request`."""
    if config.password_env and not config.password_env.startswith(PREFIX):
        raise FoothillError(
            "bad_request",
            f"camera {config.name}: over HTTP password_env names a variable that begins with {PREFIX}. Others may be "
            "named in the node's own configuration.",
        )
    secrets = (state_dir / DIRECTORY).resolve()
    if config.password_file and not Path(config.password_file).resolve().is_relative_to(secrets):
        raise FoothillError(
            "bad_request",
            f"camera {config.name}: over HTTP password_file names a file in {secrets}. Others may be named in the "
            "node's own configuration.",
        )
