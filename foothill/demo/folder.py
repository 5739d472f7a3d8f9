"""Where a demo keeps what it makes: a temporary folder, or one that is its own and nobody else's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from foothill.site import MachineError

_MARK = ".foothill-demo"


@contextmanager
def state_folder(wanted: Path | None, console: Console) -> Iterator[Path]:
    """An empty folder. A temporary one is removed when all went well; after a failure it stays, with its logs.

    A folder that was named is emptied only if an earlier demo made it. Raises MachineError for any other that holds
    something.
    """
    if wanted is not None:
        _empty(wanted)
        yield wanted
        return
    folder = Path(tempfile.mkdtemp(prefix="foothill-demo-"))
    try:
        yield folder
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    except BaseException:
        console.print(f"State and logs of this run are kept in {folder}.", soft_wrap=True)
        raise
    shutil.rmtree(folder)


def _empty(folder: Path) -> None:
    mark = folder / _MARK
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not mark.exists())):
        raise MachineError(f"{folder} exists and no demo made it. Name a new or an empty folder with --state.")
    if mark.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
