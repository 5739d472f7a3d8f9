"""Pictures in the page's own colours and letters, the same every time."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import msgspec
import pytest

from model_compiler.reporting import pictures
from model_compiler.reporting.findings import EXACT_DB, Bin, Diagnosis, LayerNoise, Reliability
from model_compiler.reporting.fronts import Point
from model_compiler.reporting.markup import Html
from model_compiler.reporting.svg import INKS, for_page
from tests.model_compiler.reporting.example import infeasible, noise, quantizing, reliability, rule
from tests.model_compiler.reporting.test_markup import HOSTILE

BYTES = pictures.Cost("bytes", "size, kB", 400.0)


def spot(name: str, cost: float, worth: float, **marks: bool) -> pictures.Spot:
    return pictures.Spot(Point(name, cost, worth), worth - 0.002, worth + 0.002, **marks)


def front(*spots: pictures.Spot) -> Html:
    return pictures.front_picture(spots, metric="accuracy", cost=BYTES, floor=0.925, told="a front")


def texts(picture: Html) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(picture).iter("text")]


def drawn() -> dict[str, Html]:
    diagnosis = quantizing().diagnosis
    assert isinstance(diagnosis, Diagnosis)
    return {
        "front": front(spot("teacher", 4912, 0.931, reference=True), spot("int8", 349, 0.928, chosen=True)),
        "noise": pictures.noise_picture(diagnosis, told="noise", key="noise"),
        "reliability": pictures.reliability_picture(
            reliability(0.1, 0.06), reliability(0.0, 0.01), told="reliability", key="reliability"
        ),
        "risk": pictures.risk_picture(rule("a.onnx"), told="risk", key="risk"),
        "infeasible": pictures.risk_picture(infeasible("a.onnx"), told="risk", key="risk"),
    }


@pytest.fixture(scope="module")
def all_drawn() -> dict[str, Html]:
    return drawn()


def test_the_same_picture_has_the_same_bytes(all_drawn: dict[str, Html]) -> None:
    assert drawn() == all_drawn


def test_no_colour_is_fixed(all_drawn: dict[str, Html]) -> None:
    """A colour of matplotlib's own would not turn with the page; nor would black, which is what is left out."""
    for picture in all_drawn.values():
        assert not re.search(r"#[0-9a-f]{6}", picture)
        for node in ElementTree.fromstring(picture).iter("text"):
            assert re.search(r"fill: var\(--[a-z]+\)", node.attrib["style"])


def test_a_picture_names_nothing_outside_itself_and_says_what_it_shows(all_drawn: dict[str, Html]) -> None:
    for picture in all_drawn.values():
        root = ElementTree.fromstring(picture)
        ids = {node.attrib["id"] for node in root.iter() if "id" in node.attrib}
        targets = set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture))
        assert targets == ids
        assert "http" not in picture
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "width" not in root.attrib


def test_ids_of_one_picture_are_not_those_of_another(all_drawn: dict[str, Html]) -> None:
    ids = [set(re.findall(r' id="([^"]+)"', all_drawn[name])) for name in ("front", "noise", "reliability", "risk")]
    assert len(set().union(*ids)) == sum(map(len, ids))


def test_the_chosen_the_teacher_and_the_front_are_named_and_the_beaten_where_there_is_room() -> None:
    picture = front(
        spot("teacher", 4912, 0.931, reference=True),
        spot("int8", 349, 0.928, chosen=True),
        spot("int4", 298, 0.909),
        spot("beaten", 800, 0.920),
        *(spot(f"crowded {at}", 2000 + at, 0.915) for at in range(12)),
    )
    assert {"teacher", "int8", "int4", "beaten"} <= set(texts(picture))
    assert 0 < sum("crowded" in text for text in texts(picture)) < 12


def test_the_front_goes_up_in_steps_because_nothing_lies_between_two_points() -> None:
    best = [Point("a", 1.0, 0.90), Point("b", 3.0, 0.95), Point("c", 9.0, 0.97)]
    assert pictures._steps(best) == [(1.0, 0.90), (3.0, 0.90), (3.0, 0.95), (9.0, 0.95), (9.0, 0.97)]
    assert pictures._steps(best[:1]) == [(1.0, 0.90)]


def test_bins_that_crowd_near_certainty_are_drawn_apart() -> None:
    crowded = Reliability(0.01, (Bin(0.77, 0.74, 34), Bin(0.97, 0.94, 34), Bin(0.9999, 1.0, 430)))
    drawn = pictures.reliability_picture(crowded, crowded, told="r", key="r")
    assert "70" in texts(drawn)
    assert "0" not in texts(drawn)
    sure = Reliability(0.0, (Bin(1.0, 1.0, 430),))
    assert "90" in texts(pictures.reliability_picture(sure, sure, told="r", key="r"))


@pytest.mark.parametrize("cost", [0.0, 5.0], ids=["nothing", "all alike"])
def test_candidates_that_cost_alike_are_drawn(cost: float) -> None:
    assert {"a", "b"} <= set(texts(front(spot("a", cost, 0.9), spot("b", cost, 0.9))))


def test_hostile_and_foreign_names_are_drawn_as_text() -> None:
    picture = front(spot(HOSTILE, 10, 0.9, chosen=True), spot("模型\n$x^2$", 20, 0.95, reference=True))
    named = texts(picture)
    assert "模型 $x^2$" in named
    assert any("<script>" in text for text in named)
    assert "<script" not in picture


def test_findings_carry_their_numbers_and_kept_layers_are_hollow() -> None:
    diagnosis = quantizing().diagnosis
    assert isinstance(diagnosis, Diagnosis)
    picture = pictures.noise_picture(diagnosis, told="noise", key="noise")
    assert {"1", "2", "3"} <= set(texts(picture))
    without = msgspec.structs.replace(
        diagnosis, findings=(), layers=tuple(LayerNoise(each.node, each.tensor, each.sqnr_db) for each in noise())
    )
    plain = pictures.noise_picture(without, told="noise", key="noise")
    assert picture.count("var(--paper)") > plain.count("var(--paper)")
    assert "var(--bad)" in picture
    assert "var(--bad)" not in plain


def test_hundreds_of_layers_and_noise_louder_than_the_signal_fit() -> None:
    layers = tuple(LayerNoise(f"n{at}", "t", -6.0 + at / 10) for at in range(400))
    picture = pictures.noise_picture(Diagnosis(layers), told="noise", key="noise")
    assert "NaN" not in picture


def test_a_layer_without_noise_does_not_hide_how_the_others_differ() -> None:
    layers = (LayerNoise("a", "t", 12.0), LayerNoise("b", "t", 30.0), LayerNoise("exact", "t", EXACT_DB))
    ticks = [text for text in texts(pictures.noise_picture(Diagnosis(layers), told="", key="n")) if text.isdigit()]
    assert max(map(int, ticks)) <= 40


def test_what_is_certified_is_marked_and_what_is_not_says_the_least(all_drawn: dict[str, Html]) -> None:
    assert "certified" in texts(all_drawn["risk"])
    assert not [text for text in texts(all_drawn["infeasible"]) if "certified" in text]
    assert "smallest: 2.2 %" in [text.replace("\N{NO-BREAK SPACE}", " ") for text in texts(all_drawn["infeasible"])]


def test_an_ink_in_a_name_stays_a_name() -> None:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="1pt"><title>t</title><text id="unused" '
        f"style=\"fill: {INKS['ink']}; font-family: 'DejaVu Sans'\">{INKS['ink']} url(#a)</text></svg>"
    )
    assert for_page(svg, "p-", 'a "b"') == (
        '<svg role="img" aria-label="a &quot;b&quot;"><text style="fill: var(--ink); ">#0101a1 url(#a)</text></svg>'
    )
