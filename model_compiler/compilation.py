"""One compilation under way: its plan, its stages, who watches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_compiler.plan import Plan
from model_compiler.progress import Progress
from model_compiler.stages import Produce, Stages


class Compilation:
    """What every step of a compilation works with."""

    def __init__(self, plan: Plan, stages: Stages, progress: Progress) -> None:
        self.plan, self.stages, self.progress = plan, stages, progress
        self.warnings: list[str] = []

    def stage(self, name: str, inputs: Mapping[str, Any], produce: Produce) -> Path:
        """The files of stage `name`, run unless it ran before with equal `inputs`."""
        return self.stages.run(self.plan.reference, name, inputs, produce, self.progress)

    def warn(self, what: str) -> None:
        """For the report: something a user should know before the bundle is published."""
        self.warnings.append(what)
