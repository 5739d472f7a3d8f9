"""Freed memory stays in the process: large bodies cost no page faults; and an operator's own tuning stands."""

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
