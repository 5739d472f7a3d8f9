"""What a node says of its machine: as it was found at the start, but for what changes while it runs."""

from __future__ import annotations

import msgspec

from contracts.boards import Fingerprint
from runtime.serving.engines.fingerprint import Run, read_power_mode, run_command
from runtime.serving.models.hosting import ModelHost


class NodeMachine:
    """`look` blocks for a command and is for a thread; `fingerprint` is for the event loop."""

    def __init__(self, found: Fingerprint, host: ModelHost, run: Run = run_command) -> None:
        self._found = found
        self._host = host
        self._run = run

    def look(self) -> None:
        """Reads the power mode of a Jetson again; one that cannot be read now is taken to be as before."""
        mode = read_power_mode(self._run) if self._found.jetpack is not None else None
        if mode is not None:
            self._found = msgspec.structs.replace(self._found, power_mode=mode)

    def fingerprint(self) -> Fingerprint:
        """`provider` is the one asked for until another one had to take over the work of a model that is served."""
        instead = [one.loaded.engine.provider for _, one in sorted(self._host.models.items()) if one.loaded.fell_back]
        return msgspec.structs.replace(self._found, provider=(instead or [self._found.provider])[0])
