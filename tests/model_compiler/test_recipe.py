"""What a recipe means where it says nothing."""

from __future__ import annotations

import pytest

from contracts.manifest import PostprocessKind, Task
from model_compiler.recipe import BundleTable, PostprocessTable, Recipe


@pytest.mark.parametrize(
    ("task", "kind", "outputs"),
    [
        ("classification", "logits", ("logits",)),
        ("embedding", "vector", ("embedding",)),
        ("detection", "tensors", ("detections",)),
    ],
)
def test_the_task_names_the_outputs_and_what_they_hold(task: Task, kind: PostprocessKind, outputs: tuple[str]) -> None:
    recipe = Recipe(BundleTable("a", "1", "a", task), postprocess=PostprocessTable(input="pixels"))
    assert (recipe.kind, recipe.outputs) == (kind, outputs)


def test_what_is_given_is_taken() -> None:
    recipe = Recipe(BundleTable("a", "1", "a"), postprocess=PostprocessTable("probabilities", outputs=("scores",)))
    assert (recipe.kind, recipe.outputs) == ("probabilities", ("scores",))
