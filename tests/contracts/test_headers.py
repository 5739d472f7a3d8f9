"""The caller's terms: whatever bytes a header holds, terms or a named error; and nothing crosses that must not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from contracts import headers
from contracts.errors import FoothillError
from contracts.headers import Terms, parse_terms, relayed

anything = st.text(max_size=200)
names = st.sampled_from(
    [
        headers.DEADLINE_MS,
        headers.ESCALATION,
        headers.RESIDENCY,
        headers.REQUEST_ID,
        headers.IDEMPOTENCY_KEY,
        headers.TRACEPARENT,
        headers.HOP,
        headers.LOAD,
        headers.ANSWER,
        headers.TIER,
        "Content-Type",
        "X-Other",
    ]
)


def test_terms_in_form_are_read_whatever_their_case() -> None:
    sent = CIMultiDict(
        {
            "foothill-deadline-ms": " 250.5 ",
            "FOOTHILL-ESCALATION": "Never",
            "foothill-residency": "EU-Central, eu-west",
            "foothill-request-id": "r-1",
            "idempotency-key": "k:1",
            "Traceparent": "00-ab-cd-01",
        }
    )
    assert parse_terms(sent) == Terms(250.5, "never", ("eu-central", "eu-west"), "r-1", "k:1", "00-ab-cd-01")


def test_without_headers_there_are_no_wishes() -> None:
    assert parse_terms({}) == Terms()


@pytest.mark.parametrize(
    "value", ["", "0", "-5", "nan", "inf", "1e3", "1_000", "0x10", "٣", "600001", "1.2.3", "1 2", "0\x1f"]
)
def test_a_deadline_out_of_form_is_refused(value: str) -> None:
    with pytest.raises(FoothillError, match="Foothill-Deadline-Ms") as raised:
        parse_terms({headers.DEADLINE_MS: value})
    assert raised.value.code == "bad_header"


@pytest.mark.parametrize("value", ["", "eu,", ",", "a b", "../x", "a" * 64, ",".join(f"r{n}" for n in range(65))])
def test_a_claim_out_of_form_is_refused_and_never_narrowed_by_itself(value: str) -> None:
    with pytest.raises(FoothillError, match="Foothill-Residency"):
        parse_terms({headers.RESIDENCY: value})


def repeated(name: str, *values: str) -> CIMultiDict[str]:
    return CIMultiDict([(name, value) for value in values])


def test_repeated_claims_must_all_hold() -> None:
    terms = parse_terms(repeated(headers.RESIDENCY, "eu-west, eu-central,us-east", "us-east,EU-West", "eu-west"))
    assert terms.residency == ("eu-west",)
    assert terms.claim() == {headers.RESIDENCY: "eu-west"}
    assert parse_terms({}).claim() == {}


def test_capabilities_that_are_repeated_add_up() -> None:
    terms = parse_terms(repeated(headers.CAPABILITIES, "HD, gpu", "roof,gpu"))
    assert terms.capabilities == ("gpu", "hd", "roof")
    assert headers.renewed(terms, {headers.REQUEST_ID: "r2"}).capabilities == terms.capabilities
    assert parse_terms({}).capabilities == ()


@pytest.mark.parametrize("values", [("eu-west", "us-east"), ("eu-west", ""), ("eu-west", "../x")])
def test_claims_that_no_region_meets_or_of_which_one_is_out_of_form_are_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(FoothillError, match="Foothill-Residency") as raised:
        parse_terms(repeated(headers.RESIDENCY, *values))
    assert raised.value.code == "bad_header"


@pytest.mark.parametrize(
    ("name", "one", "other"), [(headers.DEADLINE_MS, "100", "5000"), (headers.ESCALATION, "never", "always")]
)
def test_a_term_repeated_in_other_words_is_refused(name: str, one: str, other: str) -> None:
    assert parse_terms(repeated(name, one, one)) == parse_terms({name: one})
    with pytest.raises(FoothillError, match="send the header once"):
        parse_terms(repeated(name, one, other))


@given(st.dictionaries(names, anything, max_size=8))
def test_any_headers_give_terms_or_a_named_error(sent: dict[str, str]) -> None:
    try:
        terms = parse_terms(sent)
    except FoothillError as error:
        refused = error
    else:
        assert terms.deadline_ms is None or 0 < terms.deadline_ms <= headers.MAX_DEADLINE_MS
        assert terms.escalation in ("auto", "never", "always")
        assert (headers.RESIDENCY in sent) == bool(terms.residency)
        return
    assert refused.code == "bad_header"
    assert refused.message.encode()
    assert len(refused.message) < 600


@given(st.dictionaries(names, anything))
def test_only_listed_headers_in_plain_text_are_relayed(sent: dict[str, str]) -> None:
    for listed in (headers.RELAYED_IN, headers.RELAYED_OUT):
        kept = relayed(CIMultiDict(sent), listed)
        assert set(kept) <= set(listed)
        assert all(value.isascii() and "\n" not in value and "\r" not in value for value in kept.values())
        assert not {name.lower() for name in kept} & headers.HOP_ONLY


def test_what_a_holder_writes_itself_is_not_relayed_in() -> None:
    own = {headers.TIER, headers.NODE, headers.REASON, headers.CONFIDENCE, headers.CERTIFIED, headers.DEGRADED}
    assert not own & set(headers.RELAYED_IN)
    assert headers.REQUEST_ID not in headers.RELAYED_IN
