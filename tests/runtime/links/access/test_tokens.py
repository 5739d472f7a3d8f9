"""Static tokens: known by their hash, limited by name, read again when the file changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from contracts.errors import FoothillError
from contracts.headers import Terms
from runtime.links.access.grants import Allowance
from runtime.links.access.tokens import LOOK_AGAIN_S, TokenFile
from runtime.links.process.settings import SettingsError


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def table(token: str, name: str = "kiosk", more: str = "") -> str:
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{more}\n'


class Tokens:
    def __init__(self, directory: Path, text: str) -> None:
        self.path = directory / "tokens.toml"
        self.path.write_text(text)
        self.clock = Clock()
        self.file = TokenFile(self.path, self.clock)

    def rewrite(self, text: str) -> None:
        """As editors and configuration tools do."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        os.replace(new, self.path)
        self.clock.now_s += LOOK_AGAIN_S

    def refusal(self, token: str, model: str = "digits") -> str:
        with pytest.raises(FoothillError) as refused:
            self.file.grant(token, model)
        return refused.value.code


def test_a_token_is_known_by_its_hash_and_tells_its_tenant(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path, table("s3cret"))
    assert tokens.file.grant("s3cret", "digits").tenant == "kiosk"
    for wrong in ("", "s3cret ", "S3CRET", hashlib.sha256(b"s3cret").hexdigest(), "\udcff"):
        assert tokens.refusal(wrong) == "unauthorized"


def test_models_residency_and_rate_bind_a_token(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path, table("t", more='models = ["digits"]\nresidency = ["eu", "ch"]\nrequests_per_s = 2.0'))
    assert tokens.refusal("t", "faces") == "forbidden"
    grant = tokens.file.grant("t", "digits")
    assert grant.narrow(Terms()).residency == ("eu", "ch")
    assert grant.narrow(Terms(residency=("ch", "us"))).residency == ("ch",)
    with pytest.raises(FoothillError, match="keeps requests in"):
        grant.narrow(Terms(residency=("us",)))
    tokens.file.grant("t", "digits")
    assert tokens.refusal("t") == "rate_limited"
    tokens.clock.now_s += 0.5
    tokens.file.grant("t", "digits")


def test_two_tokens_of_one_tenant_share_its_rate_so_that_a_change_of_tokens_needs_no_pause(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path, table("old", more="requests_per_s = 1.0") + table("new", more="requests_per_s = 1.0"))
    tokens.file.grant("old", "digits")
    assert tokens.refusal("new") == "rate_limited"


def test_a_changed_file_counts_within_a_second(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path, table("one"))
    tokens.rewrite(table("two"))
    assert tokens.refusal("one") == "unauthorized"
    tokens.file.grant("two", "digits")


@pytest.mark.parametrize("text", ["", "[[tokens", "tokens = []", '[[tokens]]\nname = "x"', table("a") + table("a")])
def test_a_slip_of_the_editor_shuts_nobody_out(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    tokens = Tokens(tmp_path, table("one"))
    tokens.rewrite(text)
    tokens.file.grant("one", "digits")
    tokens.clock.now_s += 10
    tokens.file.grant("one", "digits")
    assert len([record for record in caplog.records if "go on to hold" in record.message]) == 1
    with pytest.raises(SettingsError):
        TokenFile(tokens.path, tokens.clock)


def test_a_file_that_goes_away_leaves_what_it_said(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path, table("one"))
    tokens.path.unlink()
    tokens.clock.now_s += 10
    tokens.file.grant("one", "digits")
    tokens.rewrite(table("two"))
    assert tokens.refusal("one") == "unauthorized"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[[tokens]]\nname = "Kiosk 1"\nsha256 = "' + "a" * 64 + '"', "lower-case"),
        ('[[tokens]]\nname = "k"\nsha256 = "s3cret"', "sha256sum"),
        ('[[tokens]]\nname = "k"\nsha256 = "' + "a" * 64 + '"\nrequest_per_s = 1', "request_per_s"),
        ('[[tokens]]\nname = "k"\nsha256 = "' + "a" * 64 + '"\nrequests_per_s = -1.0', "requests_per_s"),
        ('[[tokens]]\nname = "k"\nsha256 = "' + "a" * 64 + '"\nresidency = ["E U"]', "region"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=word):
        TokenFile(path, Clock())


def test_what_a_token_may_cost_is_told_to_whoever_escalates_for_it(tmp_path: Path) -> None:
    more = "escalations_per_s = 0.5\nescalations_per_day = 100\ncost_per_day = 2.5"
    tokens = Tokens(tmp_path, table("t", more=more) + table("free", name="free"))
    assert tokens.file.grant("t", "digits").allowance == Allowance(0.5, 100, 2.5)
    assert not tokens.file.grant("free", "digits").allowance.limited


@pytest.mark.parametrize("more", ["escalations_per_day = -1", "cost_per_day = -0.1", "escalations_per_s = inf"])
def test_an_allowance_that_is_none_is_refused(tmp_path: Path, more: str) -> None:
    with pytest.raises(SettingsError, match=more.partition(" ")[0]):
        Tokens(tmp_path, table("t", more=more))
