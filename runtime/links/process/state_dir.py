"""A state directory belongs to one process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.links.process.settings import SettingsError


@contextmanager
def held(state_dir: Path) -> Iterator[Path]:
    """Makes the directory and holds it while the block runs. Raises SettingsError when another process has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("w")
    except OSError as error:
        raise SettingsError(f"state_dir {state_dir} cannot be written ({error.strerror}). Set another.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"Another process runs in state_dir {state_dir}. Stop it, or set another state_dir."
            ) from error
        yield state_dir
