"""The training loop: it learns, repeats itself, and leaves torch as it found it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model_compiler.data.samples import Arrays
from model_compiler.learning.train import Schedule, seeded, train


def blobs(n: int, seed: int) -> Arrays:
    """Two classes that a line separates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    inputs = rng.standard_normal((n, 4)).astype(np.float32) + 3 * labels[:, None].astype(np.float32)
    return Arrays(inputs, labels)


def trained(seed: int) -> tuple[torch.nn.Module, list[float]]:
    with seeded(seed):
        net = torch.nn.Linear(4, 2)
    steps: list[float] = []
    train(net, blobs(256, 0), Schedule(epochs=4, peak=0.1, batch=64), seed=seed, advance=steps.append)
    return net, steps


def test_training_learns_and_tells_how_far_it_is() -> None:
    net, steps = trained(0)
    test = blobs(200, 1)
    with torch.inference_mode():
        right = (net(torch.from_numpy(test.inputs)).argmax(1).numpy() == test.labels).mean()
    assert right > 0.95
    assert not net.training
    assert steps == pytest.approx([(step + 1) / 16 for step in range(16)])


def test_the_same_seed_gives_the_same_weights_and_leaves_torchs_state_alone() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first, second, other = (trained(seed)[0].weight.detach().numpy() for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fewer_samples_than_a_batch_still_train() -> None:
    net = torch.nn.Linear(4, 2)
    before = net.weight.detach().numpy().copy()
    train(net, blobs(8, 0), Schedule(epochs=1, peak=0.1, batch=64), seed=0)
    assert not np.array_equal(net.weight.detach().numpy(), before)


class Several(torch.nn.Module):  # type: ignore[misc]
    """Answers first, and tells a second thing that no label is about."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.answering, self.other, self.kind = torch.nn.Linear(4, 2), torch.nn.Linear(4, 7), kind

    def forward(self, inputs: torch.Tensor) -> Any:
        told = {"logits": self.answering(inputs), "more": self.other(inputs)}
        return told if self.kind is dict else self.kind(told.values())


@pytest.mark.parametrize("kind", [tuple, list, dict])
def test_a_network_of_several_outputs_learns_by_the_one_that_answers(kind: type) -> None:
    with seeded(0):
        net = Several(kind)
    before = net.other.weight.detach().clone()
    train(net, blobs(256, 0), Schedule(epochs=4, peak=0.1, batch=64, weight_decay=0), seed=0)
    test = blobs(200, 1)
    with torch.inference_mode():
        assert (net.answering(torch.from_numpy(test.inputs)).argmax(1).numpy() == test.labels).mean() > 0.95
    assert torch.equal(net.other.weight, before)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64])
def test_labels_may_be_whole_numbers_of_any_size(kind: type) -> None:
    net = torch.nn.Linear(4, 2)
    samples = blobs(128, 0)
    train(net, Arrays(samples.inputs, samples.labels.astype(kind)), Schedule(epochs=1, peak=0.1, batch=64), seed=0)
    assert net.weight.isfinite().all()
