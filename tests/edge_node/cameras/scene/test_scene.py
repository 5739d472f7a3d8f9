"""A whole scene: somebody walks through it, and is told of once, at any resolution."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_node.cameras.scene.config import MaskConfig, SceneConfig
from edge_node.cameras.scene.counts import LineCount, ZoneCount
from edge_node.cameras.scene.events import Crossed, Entered, Left, RuleBegan, RuleEnded, SceneEvent
from edge_node.cameras.scene.masks import hidden, without_hidden
from edge_node.cameras.scene.scene import Scene
from edge_node.cameras.tracking.config import TrackerConfig
from edge_node.cameras.tracking.tracker import Tracker
from runtime.serving.models.found import Found
from tests.edge_node.cameras.tracking.walks import Walker, found

CONFIG = msgspec.convert(
    {
        "zones": [{"name": "right", "polygon": [[0.5, 0], [1, 0], [1, 1], [0.5, 1]]}],
        "lines": [{"name": "middle", "start": [0.5, 1], "end": [0.5, 0]}],
        "rules": [{"name": "stays", "zone": "right", "for_s": 3.0}],
        "masks": [{"name": "left", "polygon": [[0, 0], [0.25, 0], [0.25, 1], [0, 1]]}],
    },
    SceneConfig,
)
WALKER = Walker(100, 400, 100, 0, 150, sway=0, period_s=1, from_s=0, until_s=6)


def watched(scale: float, missing: frozenset[int] = frozenset()) -> tuple[Scene, list[SceneEvent]]:
    """Somebody walks in from the left, stops at 600 of 800 pixels, stands there while nothing moves, and is gone."""
    tracker, scene, events = Tracker(TrackerConfig(), ["person"]), Scene(CONFIG), list[SceneEvent]()
    width, height = round(800 * scale), round(600 * scale)
    for tick in range(150):
        now_s, walked_s = tick / 10, min(tick / 10, 5.0)
        if 60 <= tick < 100:
            tracker.tick(now_s, still=True)
        else:
            there = tick < 110 and tick not in missing
            box = tuple(scale * edge for edge in WALKER.box(walked_s))
            tracker.update(found(box) if there else Found.nothing(), now_s)  # type: ignore[arg-type]
        events += scene.update(tracker.tracks, width, height, now_s)
    return scene, events


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.4])
@pytest.mark.parametrize("missing", [frozenset[int](), frozenset(range(25, 36, 2))])
def test_who_walks_in_stands_and_is_gone_is_told_of_once(scale: float, missing: frozenset[int]) -> None:
    scene, events = watched(scale, missing)
    kinds = [type(event) for event in events]
    assert sorted(kinds[:2], key=lambda kind: kind.__name__) == [Crossed, Entered]
    assert kinds[2:] == [RuleBegan, Left, RuleEnded]
    (began,) = (event for event in events if isinstance(event, RuleBegan))
    assert began.at_s == pytest.approx(6.1, abs=0.3)  # it passed the middle at 3.0
    (left,) = (event for event in events if isinstance(event, Left))
    assert left.stayed_s == pytest.approx(7.9, abs=0.3)
    assert scene.counts.zones() == (ZoneCount("right", {}, {"person": 1}),)
    assert scene.counts.lines() == (LineCount("middle", {"person": 1}, {}),)


def test_what_a_mask_hides() -> None:
    masks = (*CONFIG.masks, MaskConfig("window", ((0.5, 0.0), (1.0, 0.0), (1.0, 0.5)), hides=("pixels",)))
    boxes = found((100, 300, 150, 500), (160, 300, 230, 500), (190, 300, 250, 700), (-30, 300, 20, 700))
    assert without_hidden(boxes, masks, 800, 600).boxes.tolist() == [[190, 300, 250, 700]]
    assert len(without_hidden(boxes, (), 800, 600).boxes) == 4
    np.testing.assert_array_equal(hidden(masks, "motion", 8, 6), [[255] * 2 + [0] * 6] * 6)
    assert hidden(masks, "pixels", 8, 6)[0].tolist() == [0] * 5 + [255] * 3
