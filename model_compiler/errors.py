"""The one exception of the compiler, and what it is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CompileError(Exception):
    """A stage refused its input or its own result. The message names the stage's finding and what to do.

    `key`: what a recipe calls that which is at fault, such as `teacher.weights`; empty where that is unknown.
    """

    def __init__(self, message: str, *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


@contextmanager
def about(key: str) -> Iterator[None]:
    """What is refused within is the fault of `key`, unless it is known better."""
    try:
        yield
    except CompileError as error:
        error.key = error.key or key
        raise
