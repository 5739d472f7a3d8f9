"""What makes a thing doubtful beside its confidence."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from contracts.camera_events import Box
from edge_node.cameras.escalation.config import EscalationConfig, Where
from edge_node.cameras.escalation.subjects import Look
from runtime.serving.engines.tensors import Array
from runtime.serving.pictures.picture import Size

BELOW, BROKEN, FUNCTION, EMPTY, UNUSUAL = "below", "broken-track", "function", "motion-unseen", "unusual"
"""Their names in what is said. The last two are of whole pictures."""


class Sight(NamedTuple):
    """What an operator's function is asked about. Boxes are left, top, right, bottom in pixels of a picture of `size`;
    `box` None: of the whole picture. `picture()` is uint8 [height, width, 3], blue first."""

    camera: str
    label: str
    score: float
    confidence: float | None
    box: Box | None
    size: Size
    zones: tuple[str, ...]
    age_s: float
    picture: Callable[[], Array]


Doubt = Callable[[Sight], bool]


class FunctionFailed(Exception):  # noqa: N818 - what happened, not what it is
    """An operator's function cannot be had, or has failed."""


def triggered(look: Look, config: EscalationConfig) -> str:
    """The first trigger that speaks, "" where none does; the operator's function is asked apart."""
    if look.subject.score < config.below:
        return BELOW
    if config.broken and look.subject.broken:
        return BROKEN
    return ""


def sight_of(look: Look, camera: str) -> Sight:
    subject, shot = look.subject, look.shot
    return Sight(
        camera,
        subject.label,
        subject.score,
        subject.confidence,
        subject.box,
        shot.size,
        subject.zones,
        max(0.0, shot.at_s - subject.began_at_s),
        lambda: shot.picture("bgr").copy(),
    )


def load(where: Where, base: Path) -> Doubt:
    """An operator's own function; a relative file begins at `base`. Runs that file.

    Raises FunctionFailed.
    """
    path = base / where.file
    spec = importlib.util.spec_from_file_location(f"foothill_operator_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FunctionFailed(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise FunctionFailed(f"{path} failed ({type(error).__name__}: {error})") from error
    found = getattr(module, where.name, None)
    if not callable(found):
        raise FunctionFailed(f"{path} has no function {where.name}")
    return cast(Doubt, found)


def asked(function: Doubt, sight: Sight) -> bool:
    """What it says. Raises FunctionFailed."""
    try:
        return bool(function(sight))
    except Exception as error:
        raise FunctionFailed(f"it fails ({type(error).__name__}: {error})") from error
