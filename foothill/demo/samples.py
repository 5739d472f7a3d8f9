"""The demo's pictures in the forms that clients send: camera frames of digits that no model has seen."""

from __future__ import annotations

import numpy as np

from foothill.demo.traffic import Sample
from model_compiler.data.samples import to_samples
from model_compiler.digits.camera import test_frames
from model_compiler.digits.recipe import PREPROCESS
from model_compiler.digits.splits import LABELS


def digit_samples(count: int, seed: int) -> tuple[Sample, ...]:
    """`count` frames of the test part, each its own picture. The same for the same seed."""
    frames = test_frames(count, seed)
    tensors = to_samples(frames.images, frames.labels, PREPROCESS).inputs.astype("<f4")
    return tuple(
        Sample(jpeg, png, np.ascontiguousarray(tensor).tobytes(), (1, *tensor.shape), LABELS[label])
        for jpeg, png, tensor, label in zip(frames.jpeg, frames.png, tensors, frames.labels.tolist(), strict=True)
    )
