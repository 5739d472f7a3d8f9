"""What the parts of the data hold, row by row: whether numbers are finite, and whether two parts hold the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from model_compiler.data.samples import Samples, batches
from model_compiler.errors import CompileError

_MOST_NUMBERS, _MOST_ROWS = 1 << 27, 1 << 18
"""Of the inputs of a part: a larger one is looked at in its first rows alone."""
_AT_ONCE = 1 << 22
_BY_CHANCE = 0.05


def marks_of(samples: Samples, part: str) -> list[bytes]:
    """One mark a row, equal for equal inputs, in order. Raises CompileError for a row that is not finite."""
    if not len(samples):
        return []
    numbers = max(1, samples.batch(np.zeros(1, np.int64)).size)
    most, marks = min(_MOST_ROWS, max(1, _MOST_NUMBERS // numbers)), list[bytes]()
    for batch in batches(samples, max(1, _AT_ONCE // numbers)):
        finite = np.isfinite(batch).reshape(len(batch), -1).all(axis=1)
        if not finite.all():
            row = len(marks) + int(finite.argmin())
            raise CompileError(f"Row {row} of {part} holds NaN or infinity. Mend that row, or leave it out.")
        marks += [blake2b(row.tobytes(), digest_size=16).digest() for row in batch]
        if len(marks) >= most:
            break
    return marks


def are_apart(one: Sequence[bytes], other: Sequence[bytes]) -> bool:
    """Whether the smaller of two parts, by their marks, has no more rows of the larger than comes of chance.

    Draws of what takes few values, or of a scene that often stands still, are equal by chance: between two parts about
    as often as within one, so what repeats within either tells how much that is.
    """
    fewer, more = sorted((one, other), key=len)
    if not fewer:
        return True
    known = set(more)
    shared = sum(mark in known for mark in fewer) / len(fewer)
    repeated = max(1 - len(set(marks)) / len(marks) for marks in (fewer, more))
    return shared <= _BY_CHANCE + 2 * repeated
