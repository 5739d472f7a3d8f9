"""The packages of an edge node on the Python of JetPack 6, where there is one: their tests, but for the slow ones."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = Path(os.environ.get("FOOTHILL_PYTHON310") or ROOT / ".venv-310" / "bin" / "python")
NEEDS = (
    "aiohttp, cv2, filelock, hypothesis, onnx, onnxruntime, PIL, pytest_asyncio, simplejpeg, tritonclient, tuf, xdist"
)
FAST = "not integration and not assets and not trt and not peers and not openvino and not gpu_wheel"
SLOW = ("--ignore=tests/runtime/serving/batching", "--ignore=tests/edge_node/test_repository.py")
"""Left to `make test-310`: thousands of examples of what says little of a Python."""
# A process of pytest's own workers would be taken for one of these tests'.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=850, check=False
    )


@pytest.fixture(scope="module")
def _an_old_python() -> None:
    """Skips, and says why, where there is none that could run them."""
    if not PYTHON.exists():
        pytest.skip(f"there is no {PYTHON}: make test-310, or name a Python 3.10 in FOOTHILL_PYTHON310")
    tried = run("-c", f"import sys; assert sys.version_info[:2] == (3, 10), 'it is no Python 3.10'\nimport {NEEDS}")
    if tried.returncode:
        pytest.skip(f"{PYTHON} cannot run them: {tried.stderr.strip().splitlines()[-1]}")


@pytest.mark.integration
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_an_old_python")
@pytest.mark.parametrize("package", ["contracts", "runtime", "edge_node"])
def test_the_tests_of_an_edge_nodes_packages_pass(package: str) -> None:
    options = ("-n", "0", "-q", "-p", "no:cacheprovider", *SLOW)
    done = run("-m", "pytest", *options, "-m", FAST, f"tests/{package}")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) > 100
