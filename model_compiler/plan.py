"""What to compile: everything that decides a bundle's bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from contracts.manifest import Precision, Preprocess, Task
from model_compiler.confidence import Promise
from model_compiler.data.samples import Data
from model_compiler.learning.train import Schedule
from model_compiler.pack import Packed
from model_compiler.replay import Ends

if TYPE_CHECKING:
    import torch


class ArtifactPlan(msgspec.Struct, frozen=True):
    """One file to build; a node takes the first of a bundle that names its target."""

    file: str
    precision: Precision
    targets: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True):
    """A classifier to compile. With a `cloud` bundle it is an edge bundle: distilled from it and certified against it.

    `build_net` makes the untrained network; `how` says in words what is measured on what.
    """

    name: str
    version: str
    model: str
    task: Task
    build_net: Callable[[], torch.nn.Module]
    schedule: Schedule
    data: Data
    preprocess: Preprocess
    labels: tuple[str, ...]
    artifacts: tuple[ArtifactPlan, ...]
    how: str
    cloud: Packed | None = None
    promise: Promise = Promise()
    ends: Ends = Ends("image", ("logits",))
    seed: int = 0

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.version}"
