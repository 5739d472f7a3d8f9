"""A picture made ready for the model, ahead of its turn or at it: the same picture, and no motion missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import FoothillError
from edge_node.cameras.gate import MotionConfig, MotionGate
from edge_node.cameras.preparing import Preparation, Taken
from edge_node.cameras.sources.shot import Shot, Still
from runtime.serving.engines.tensors import Array
from runtime.serving.models.loaded import LoadedModel
from tests.runtime.serving.bundle_factory import TARGET, make_classifier

EMPTY = np.full((120, 160, 3), 90, np.uint8)
SOMEBODY = EMPTY.copy()
SOMEBODY[40:80, 60:90] = 220


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return opened(tmp_path_factory.mktemp("bundle"))


def opened(directory: Path) -> LoadedModel:
    return LoadedModel.open(directory / "bundle", make_classifier(directory / "bundle"), target=TARGET, threads=1)


def shot(bgr: Array, number: int) -> Shot:
    return Still(bgr, float(number), number)


def preparation() -> Preparation:
    return Preparation(MotionGate(MotionConfig(hold_s=0.0, refresh_s=0.0), lambda size: None))


def test_ahead_or_at_its_turn_a_picture_becomes_the_same_tensor(loaded: LoadedModel) -> None:
    ahead, at_its_turn = preparation(), preparation()
    ahead.ready(ahead.ahead(shot(EMPTY, 0)), loaded)
    at_its_turn.complete(Taken(shot(EMPTY, 0), None), loaded)
    ready = ahead.ready(ahead.ahead(shot(SOMEBODY, 1)), loaded)
    complete = at_its_turn.complete(Taken(shot(SOMEBODY, 1), None), loaded)
    assert ready is not None
    assert ready.verdict == complete.verdict == "moved"
    assert ready.tensor is not None
    assert complete.tensor is not None
    np.testing.assert_array_equal(ready.tensor, complete.tensor)


def test_for_another_model_it_is_prepared_again_and_not_looked_at_twice(loaded: LoadedModel, tmp_path: Path) -> None:
    other = opened(tmp_path)
    work = preparation()
    work.ready(work.ahead(shot(EMPTY, 0)), loaded)
    taken = work.ahead(shot(SOMEBODY, 1))
    assert work.ready(taken, other) is None
    prepared = work.complete(taken, other)
    assert (prepared.verdict, prepared.loaded) == ("moved", other)
    assert prepared.tensor is not None


def test_what_stands_still_is_ready_without_a_tensor(loaded: LoadedModel) -> None:
    work = preparation()
    work.ready(work.ahead(shot(EMPTY, 0)), loaded)
    ready = work.ready(work.ahead(shot(EMPTY, 1)), loaded)
    assert ready is not None
    assert (ready.verdict, ready.tensor) == ("still", None)


def test_what_moved_in_a_picture_that_nobody_saw_is_seen_in_the_next(loaded: LoadedModel) -> None:
    work = preparation()
    work.ready(work.ahead(shot(EMPTY, 0)), loaded)
    work.gave_way(work.ahead(shot(SOMEBODY, 1)))
    seen = [work.complete(Taken(shot(SOMEBODY, number), None), loaded).verdict for number in (2, 3)]
    assert seen == ["held", "still"]


def test_a_model_that_takes_no_pictures_is_told_of_at_their_turn(tmp_path: Path) -> None:
    blind = opened(tmp_path)
    blind.preprocessor = None
    work = preparation()
    for number, scene in enumerate([EMPTY, SOMEBODY, EMPTY]):
        taken = work.ahead(shot(scene, number))
        assert work.ready(taken, blind) is None
        with pytest.raises(FoothillError, match="does not say how a picture becomes a tensor"):
            work.complete(taken, blind)


class Torn(Still):
    def luma(self) -> Array:
        raise ValueError("torn")


def test_a_picture_that_cannot_be_read_is_told_of_at_its_turn(loaded: LoadedModel) -> None:
    work = preparation()
    taken = work.ahead(Torn(SOMEBODY, 0.0, 0))
    assert work.ready(taken, loaded) is None
    with pytest.raises(ValueError, match="torn"):
        work.complete(taken, loaded)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["ahead", "late", "gives way"])), max_size=30))
def test_whoever_came_or_went_is_seen_however_pictures_are_taken(steps: list[tuple[bool, str]]) -> None:
    """The last picture that was seen looks as the scene does, whenever a picture was taken that did not give way."""
    work, seen = preparation(), None
    for number, (somebody, how) in enumerate(steps):
        picture = shot(SOMEBODY if somebody else EMPTY, number)
        if how == "late":
            prepared = work.complete(Taken(picture, None), None)
        else:
            taken = work.ahead(picture)
            if how == "gives way":
                work.gave_way(taken)
                continue
            ready = work.ready(taken, None)
            assert ready is not None
            prepared = ready
        seen = somebody if prepared.verdict != "still" else seen
        assert seen == somebody
