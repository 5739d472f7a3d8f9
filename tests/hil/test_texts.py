"""Models whose tensors are texts are accepted as others are, and held to every letter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contracts import oip
from contracts.acceptance import Acceptance
from contracts.errors import FoothillError
from contracts.manifest import Golden
from hil import tensors
from hil.boards import Board, Limits
from hil.checks.golden import compare
from hil.opening import Opened, examine
from hil.plan import Plan
from tests.hil.site import ADMIN_TOKEN, NODE, Site
from tests.runtime.serving.bundle_factory import make_echo

PLAN = Plan(
    requests=20,
    step_s=0.2,
    most_concurrency=2,
    open_shares=(0.5,),
    padding_bytes=1000,
    skip=frozenset(("soak", "recovery", "power-cut")),
)
EXACT = Golden({}, {}, atol=0.0, rtol=0.0)


async def examined(site: Site, admin_token: str, fleet: bool) -> Acceptance:
    board = Board(node=NODE, limits=Limits(p99_ms=1e6, min_throughput=0.0))
    url, token = (site.fleet.url, site.fleet_token.read_text().strip()) if fleet else ("", "")
    what = Opened(board, NODE, site.url, admin_token, "", url, token, PLAN)
    return await examine(what, lambda line: None, lambda check: None)


@pytest.mark.integration
async def test_a_node_that_serves_texts_is_accepted(site: Site, tmp_path: Path) -> None:
    make_echo(tmp_path / "echo", ("BYTES", "FP32"))
    site.fleet.publish(tmp_path / "echo")
    site.fleet.roll_out("echo-edge@1")
    report = await examined(site, ADMIN_TOKEN, fleet=True)
    of_echo = {check.name: check for check in report.checks if check.model == "echo"}
    assert [check.detail for check in report.checks if check.outcome == "failed"] == []
    assert {"metadata", "golden", "latency", "curve", "activation", "revert"} <= set(of_echo)
    assert of_echo["golden"].figures["rows"] == 1
    assert "fails its golden test" in of_echo["revert"].detail

    blind = await examined(site, "", fleet=False)
    assert [check.detail for check in blind.checks if check.outcome == "failed"] == []
    assert "latency" in {check.name for check in blind.checks if check.model == "echo"}


@pytest.mark.parametrize(
    ("got", "fault"),
    [
        (np.array([["a", "zwölf"]], object), ""),
        (np.array([["a", "zwölf "]], object), "1 of 2 texts are others"),
        (np.array([["b", ""]], object), "2 of 2 texts are others"),
        (np.array([[1.0, 2.0]]), "2 of 2 texts are others"),
        (np.array(["a", "zwölf"], object), "shape (2,), expected (1, 2)"),
    ],
    ids=["same", "a blank more", "both", "numbers", "shape"],
)
def test_texts_are_the_same_or_not(got: tensors.Array, fault: str) -> None:
    assert compare(got, np.array([["a", "zwölf"]]), EXACT, labels=False) == fault


@pytest.mark.parametrize(
    "data", [b"", b"\1\0\0\0", b"\1\0\0\0\xff", b"\1\0\0\0ab"], ids=["none", "cut", "byte", "more"]
)
def test_what_is_no_text_is_a_fault(data: bytes) -> None:
    tensor = oip.OutputTensor("y", oip.BYTES, (1,))
    assert tensors.from_bytes(tensor, tensors.to_bytes(np.array(["é"]), oip.BYTES)).tolist() == ["é"]
    with pytest.raises((FoothillError, ValueError)):
        tensors.from_bytes(tensor, data)
