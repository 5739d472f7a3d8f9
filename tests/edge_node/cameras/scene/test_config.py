"""What may be asked of a scene, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_node.cameras.scene.config import SceneConfig

SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
ZONE = {"name": "yard", "polygon": SQUARE}
LINE = {"name": "door", "start": [0.2, 0.5], "end": [0.8, 0.5]}
RULE = {"name": "loiter", "zone": "yard", "labels": ["person"], "for_s": 5}

TOML = """
[[zones]]
name = "yard"
polygon = [[0.1, 0.4], [0.9, 0.4], [0.9, 1.0], [0.1, 1.0]]
labels = ["person"]

[[masks]]
name = "street"
polygon = [[0, 0], [1, 0], [1, 0.2]]
hides = ["motion", "detections", "pixels"]

[[lines]]
name = "door"
start = [0.2, 0.5]
end = [0.8, 0.5]

[[rules]]
name = "loiter"
zone = "yard"
labels = ["person"]
for_s = 5
"""


def test_a_scene_in_toml() -> None:
    scene = msgspec.toml.decode(TOML, type=SceneConfig)
    assert (scene.zones[0].dwell_s, scene.zones[0].anchor, scene.lines[0].margin) == (0.5, "bottom-centre", 0.02)
    assert (scene.rules[0].for_s, scene.rules[0].at_least, scene.rules[0].cooldown_s) == (5.0, 1, 0.0)
    assert scene.masks[0].hides == ("motion", "detections", "pixels")
    scene.check_labels(["person", "car"])


def zone(**other: Any) -> dict[str, Any]:
    return {"zones": [{**ZONE, **other}]}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (zone(name="Front Door"), r"'Front Door' is no name for a zone: use 1 to 63 lower-case .* `\$.zones\[0\]`"),
        (zone(name="a" * 64), "use 1 to 63"),
        (zone(name=""), "use 1 to 63"),
        (zone(name="yard\n"), "use 1 to 63"),
        (zone(polygon=SQUARE[:2]), "zone yard has 2 points: a polygon needs 3"),
        (zone(polygon=SQUARE * 26), "has 104 points"),
        (zone(polygon=[[0, 0], [640, 0], [640, 480]]), r"\(640, 0\) of zone yard lies outside .* x / width"),
        (zone(polygon=[[0, 0], [-0.1, 0], [1, 1]]), "lies outside"),
        (zone(polygon=[*SQUARE, SQUARE[0]]), "leave the last one out"),
        (zone(polygon=[SQUARE[0], *SQUARE]), "twice in succession"),
        (zone(polygon=[[0, 0], [1, 1], [1, 0], [0, 1]]), "zone yard crosses itself"),
        (zone(polygon=[[0, 0], [1, 1], [0.5, 0.5]]), "or is flat"),
        (zone(anchor="top"), "anchor"),
        (zone(dwell_s=-1), "dwell_s"),
        (zone(dwell=1), "unknown field `dwell`"),
        ({"zones": [ZONE, ZONE]}, "several zones called yard"),
        ({"masks": [{**ZONE, "hides": []}]}, "mask yard hides nothing"),
        ({"masks": [{**ZONE, "hides": ["sound"]}]}, "hides"),
        ({"masks": [{**ZONE, "polygon": SQUARE[:2]}]}, "mask yard has 2 points"),
        ({"lines": [{**LINE, "end": [0.2, 0.505]}]}, "line door is shorter"),
        ({"lines": [{**LINE, "end": [2, 0.5]}]}, "line door lies outside"),
        ({"lines": [{**LINE, "margin": 0.6}]}, "margin"),
        ({"lines": [LINE, LINE]}, "several lines called door"),
        ({"rules": [RULE]}, "rule loiter watches zone 'yard', which there is none of. The zones are none"),
        ({"rules": [{**RULE, "zone": "gate"}], **zone()}, "The zones are yard: correct the rule"),
        ({"rules": [RULE], **zone(labels=["car"])}, "waits for person, but zone yard only takes car"),
        ({"rules": [{**RULE, "at_least": 0}], **zone()}, "at_least"),
        ({"rules": [RULE, RULE], **zone()}, "several rules called loiter"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=says):
        msgspec.convert(asked, SceneConfig)


def test_not_a_number_is_no_place() -> None:
    with pytest.raises(msgspec.ValidationError, match="lies outside"):
        msgspec.convert(zone(polygon=[[0, 0], [1, float("nan")], [1, 1]]), SceneConfig)


@pytest.mark.parametrize("kind", ["zone", "line", "rule"])
def test_labels_that_the_model_does_not_have_are_refused(kind: str) -> None:
    labels = {kind: {"labels": ["person", "persn"]}}
    scene = msgspec.convert(
        {
            "zones": [{**ZONE, **labels.get("zone", {})}],
            "lines": [{**LINE, **labels.get("line", {})}],
            "rules": [{**RULE, **labels.get("rule", {})}],
        },
        SceneConfig,
    )
    with pytest.raises(
        ValueError, match=f"{kind} .* names persn, which the model does not know.*Its labels are person"
    ):
        scene.check_labels(["person"])
