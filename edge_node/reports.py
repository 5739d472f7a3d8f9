"""What a node says of each of its models."""

from __future__ import annotations

from collections.abc import Callable

from contracts.messages import ModelPhase, ModelReport
from edge_node.slots import Slot, SlotFile
from runtime.serving.models.hosting import ModelHost


class Reports:
    """`models` says of each how far it is; `changed` is called after every change of it."""

    def __init__(self, host: ModelHost, slots: SlotFile) -> None:
        self.models: dict[str, ModelReport] = {}
        self.changed: list[Callable[[], None]] = []
        self._host = host
        self._slots = slots

    def tell(self, model: str, digest: str, phase: ModelPhase, error: str = "") -> None:
        served = self._host.reports().get(model)
        self.models[model] = ModelReport(
            digest=digest,
            phase=phase,
            serving=served.digest if served else "",
            previous=self._slots.get(model).previous,
            bundle=served.bundle if served else "",
            stratum=served.stratum if served else "",
            error=error,
            provider=served.provider if served else "",
        )
        self.announce()

    def tell_slot(self, model: str, slot: Slot, error: str = "") -> None:
        """What stands in a slot, where no document is being followed. `error`: what kept its bundle from being
        served."""
        if slot.rejected is not None:
            self.tell(model, slot.rejected.digest, slot.rejected.phase, slot.rejected.error)
        elif slot.off:
            self.tell(model, slot.current, "unloaded")
        elif error or not slot.current:
            trial = slot.trial.digest if slot.trial is not None else ""
            self.tell(model, slot.current or trial, "failed", error or "It was not loaded before the node stopped.")
        else:
            self.tell(model, slot.current, "active" if slot.proven else "probation")

    def forget(self, model: str) -> None:
        self.models.pop(model, None)
        self.announce()

    def announce(self) -> None:
        for callback in self.changed:
            callback()
