"""The training loop that every way of learning shares, and plain supervised training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from model_compiler.progress import Advance, unwatched
from model_compiler.samples import Floats, Samples

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Schedule(msgspec.Struct, frozen=True):
    """One-cycle AdamW: `epochs` over the samples in batches of `batch`, up to the learning rate `peak`."""

    epochs: int
    peak: float
    batch: int = 128
    weight_decay: float = 0.01


def train(
    net: torch.nn.Module, samples: Samples, schedule: Schedule, *, seed: int, advance: Advance = unwatched
) -> None:
    """Fits `net` to the labels by cross-entropy and leaves it in eval mode."""
    import torch

    labels = torch.from_numpy(samples.labels)
    run(
        net,
        samples.inputs,
        lambda logits, rows: torch.nn.functional.cross_entropy(logits, labels[rows]),
        schedule,
        seed=seed,
        advance=advance,
    )


def run(
    net: torch.nn.Module, inputs: Floats, loss: Loss, schedule: Schedule, *, seed: int, advance: Advance = unwatched
) -> None:
    """Minimises `loss(logits, rows)`; `rows` are the indices of the batch. Leaves `net` in eval mode.

    Runs on one thread: the sums, and so the weights, then do not depend on how many cores there are, and two threads
    that wait for each other on a busy machine are many times slower than one. torch's generator is left as it was.
    """
    import torch

    images = torch.from_numpy(inputs)
    batches = max(1, len(inputs) // schedule.batch)
    total = schedule.epochs * batches
    optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.peak, weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.peak, total_steps=total)
    order = np.random.default_rng(seed)
    net.train()
    with one_thread(), seeded(seed):
        for epoch in range(schedule.epochs):
            rows_in_order = torch.from_numpy(order.permutation(len(inputs)))
            for index, rows in enumerate(rows_in_order.split(schedule.batch)[:batches]):
                optimizer.zero_grad(set_to_none=True)
                loss(net(images[rows]), rows).backward()
                optimizer.step()
                rate.step()
                advance((epoch * batches + index + 1) / total)
    net.eval()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's global generator seeded inside, as it was before after."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread inside, on as many as before after."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
