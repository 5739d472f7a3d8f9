"""A builder's timings: put in before a build, taken out after it."""

from __future__ import annotations

from typing import Any

from contracts.engines import Kind


def attach(config: Any, kind: Kind, timings: bytes) -> str:
    """Gives the builder `timings` (b"": none yet); returns what was wrong with them, "" for nothing.

    Timings of another device or version are left out rather than forced upon the builder: they make a slow engine, or
    a wrong one. TensorRT-RTX keeps none, and using its empty interface would bind the build to a GPU.
    """
    if kind == "tensorrt-rtx":
        return "TensorRT-RTX keeps no timings" if timings else ""
    if timings:
        cache = config.create_timing_cache(timings)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return ""
    fresh = config.create_timing_cache(b"")
    if fresh is None or not config.set_timing_cache(fresh, ignore_mismatch=False):
        return "the builder takes no timing cache"
    return "the timings at hand are of another device or version" if timings else ""


def detach(config: Any, kind: Kind) -> bytes:
    """All timings after the build, those given before among them; b"" where there are none."""
    if kind == "tensorrt-rtx":
        return b""
    cache = config.get_timing_cache()
    serialized = None if cache is None else cache.serialize()
    return b"" if serialized is None else bytes(serialized)
