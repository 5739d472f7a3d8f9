"""Logits and answers whose right temperature is known."""

from __future__ import annotations

import numpy as np

from model_compiler.data.samples import Floats, Numbers


def drawn(n: int, heat: float, seed: int) -> tuple[Floats, Numbers]:
    """Logits (n, 10), and answers (n,) drawn from softmax(logits / heat): `heat` is the right temperature."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.standard_normal((n, 10))).astype(np.float32)
    gumbel = rng.gumbel(size=logits.shape)
    return logits, (logits / heat + gumbel).argmax(axis=1)
