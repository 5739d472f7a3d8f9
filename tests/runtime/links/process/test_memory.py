"""Freed memory stays in the process until it is given back: large bodies cost no page faults. An operator's own tuning
stands."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from runtime.links.process.memory import keep_freed

FAULTS = """
import resource, sys
from runtime.links.process.memory import keep_freed
kept = keep_freed({}) if sys.argv[1] == "kept" else False
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for turn in range(200):
    if turn == 100:
        before = faults()
    body = b"".join([bytes(300_000), bytes(300_000)])
    del body
print(kept, (faults() - before) / 100)
"""

GIVEN_BACK = """
from pathlib import Path
from runtime.links.process.memory import give_back, keep_freed
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
assert keep_freed({})
held = [b"x" * (100_000 + at) for at in range(200)]
for piece in range(0, 200, 2):
    held[piece] = b""
before = resident()
give_back()
print((before - resident()) * 4096)
"""


def faults_per_body(how: str) -> tuple[bool, float]:
    told = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=60)
    kept, faults = told.stdout.split()
    return kept == "True", float(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_large_body_is_read_into_memory_that_is_there() -> None:
    kept, faults = faults_per_body("kept")
    assert kept
    assert faults < 5
    assert faults_per_body("plain")[1] > 50


def test_what_an_operator_has_tuned_is_left_alone() -> None:
    assert not keep_freed({"MALLOC_TRIM_THRESHOLD_": "0"})


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back on request")
def test_what_is_free_is_given_back_on_request_from_between_what_is_not() -> None:
    told = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) > 5_000_000
