"""What is known of every node from its own messages. Pure: messages in, views out."""

from __future__ import annotations

from contracts.messages import Reported, Status


class Roster:
    """The highest epoch wins: an older life of a node never overwrites a younger one."""

    def __init__(self) -> None:
        self._statuses: dict[str, Status] = {}
        self._reports: dict[str, Reported] = {}

    def put_status(self, status: Status) -> bool:
        """True when the node changed its state."""
        known = self._statuses.get(status.node)
        if known is not None and status.epoch < known.epoch:
            return False
        self._statuses[status.node] = status
        return known is None or known.state != status.state

    def put_report(self, report: Reported) -> bool:
        """False for a report of an older life, which must not be acted upon."""
        known = self._reports.get(report.node)
        if known is not None and report.epoch < known.epoch:
            return False
        self._reports[report.node] = report
        return True

    def status(self, node: str) -> Status | None:
        return self._statuses.get(node)

    def report(self, node: str) -> Reported | None:
        return self._reports.get(node)

    def is_online(self, node: str) -> bool:
        status = self._statuses.get(node)
        return status is not None and status.state == "online"
