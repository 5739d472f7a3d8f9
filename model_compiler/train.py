"""The training loop that every way of learning shares, and plain supervised training."""

from __future__ import annotations

from collections.abc import Callable
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

    The same seed, threads and library build give the same weights; torch's global generator is left untouched.
    """
    import torch

    images = torch.from_numpy(inputs)
    batches = max(1, len(inputs) // schedule.batch)
    total = schedule.epochs * batches
    optimizer = torch.optim.AdamW(net.parameters(), lr=schedule.peak, weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.peak, total_steps=total)
    order = np.random.default_rng(seed)
    net.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for epoch in range(schedule.epochs):
            rows_in_order = torch.from_numpy(order.permutation(len(inputs)))
            for index, rows in enumerate(rows_in_order.split(schedule.batch)[:batches]):
                optimizer.zero_grad(set_to_none=True)
                loss(net(images[rows]), rows).backward()
                optimizer.step()
                rate.step()
                advance((epoch * batches + index + 1) / total)
    net.eval()
