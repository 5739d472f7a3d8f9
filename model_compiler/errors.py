"""The one exception of the compiler."""

from __future__ import annotations


class CompileError(Exception):
    """A stage refused its input or its own result. The message names the stage's finding and what to do."""
