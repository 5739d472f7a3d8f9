"""Topics: what is built is taken apart again, and no name breaks out of its level."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import topics

node_names = st.from_regex(topics.NODE_NAME, fullmatch=True)
kinds = st.sampled_from(topics.NODE_KINDS)
anything = st.text(max_size=80)


@given(node_names, kinds)
def test_a_node_topic_names_its_node(node: str, kind: str) -> None:
    topic = topics.node_topic(node, kind)
    assert topics.node_of(topic) == node
    prefix, _, suffix = topics.every_node(kind).partition("+")
    assert topic == f"{prefix}{node}{suffix}"


@given(node_names, node_names, st.sampled_from(["events", "counts", "state", "snapshot"]))
def test_a_cameras_topic_names_it(node: str, camera: str, kind: topics.CameraKind) -> None:
    topic = topics.camera_topic(node, camera, kind)
    assert topics.camera_of(topic) == camera
    prefix, _, suffix = topics.every_camera(node, kind).partition("+")
    assert topic == f"{prefix}{camera}{suffix}"


@pytest.mark.parametrize(
    "topic", ["", "foothill/v1/cameras/fra/status", "foothill/v1/cameras/fra/A/state", "a/b/c/d/e/f"]
)
def test_what_is_no_cameras_topic_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="no topic of a camera"):
        topics.camera_of(topic)


@given(anything, kinds)
def test_no_name_breaks_out_of_its_level(name: str, kind: str) -> None:
    try:
        topic = topics.node_topic(name, kind)
    except ValueError:
        return
    assert topic.count("/") == topics.every_node(kind).count("/")
    assert not set(topic) & set("+#\0")


@given(anything)
def test_no_stratum_breaks_out_of_its_level(stratum: str) -> None:
    for build, every in (
        (topics.audit_topic, topics.EVERY_AUDIT),
        (topics.certificate_topic, topics.EVERY_CERTIFICATE),
    ):
        try:
            topic = build(stratum)
        except ValueError:
            continue
        assert topic.count("/") == every.count("/")
        assert not set(topic) & set("+#\0")


@given(st.lists(st.sampled_from(["foothill", "v1", "nodes", "edge-fra", "status", "+", "", "#"]), max_size=7))
def test_any_topic_names_a_node_or_none(levels: list[str]) -> None:
    topic = "/".join(levels)
    try:
        node = topics.node_of(topic)
    except ValueError:
        return
    assert topic.startswith(f"foothill/v1/nodes/{node}/")


@pytest.mark.parametrize("name", ["", "Edge", "a/b", "+", "#", "-a", "a" * 64, "a b", "ä"])
def test_a_bad_name_is_told_what_to_be(name: str) -> None:
    with pytest.raises(ValueError, match="lower-case letters"):
        topics.node_topic(name, "status")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="identity, status"):
        topics.node_topic("edge-fra", "orders")
