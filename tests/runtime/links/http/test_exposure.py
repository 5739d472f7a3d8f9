"""Nobody listens for strangers without asking who they are, unless an operator insists."""

from __future__ import annotations

import pytest

from runtime.links.http.exposure import check_exposure, is_loopback
from runtime.links.process.settings import SettingsError

INSIDE = ("127.0.0.1", "127.8.9.1", "::1", "localhost", "LocalHost", "::ffff:127.0.0.1")
OUTSIDE = (
    *("", "0.0.0.0", "::", "*", "192.0.2.7", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1"),
    *("node.example", "localhost.example", "127.1", "0x7f000001", "2130706433", "0", " 127.0.0.1"),
)


@pytest.mark.parametrize("host", INSIDE)
def test_the_loopback_is_open_to_this_machine_only(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, name="node", protected=False, insecure=False, remedy="")


@pytest.mark.parametrize("host", OUTSIDE)
def test_anything_else_is_refused_with_what_to_do(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError) as refused:
        check_exposure(host, name="node", protected=False, insecure=False, remedy="set `auth.tokens_file`")
    for word in ("node", repr(host), "set `auth.tokens_file`", "127.0.0.1", "--insecure"):
        assert word in str(refused.value)


def test_who_asks_or_insists_may_listen_and_is_reminded(caplog: pytest.LogCaptureFixture) -> None:
    check_exposure("0.0.0.0", name="node", protected=True, insecure=False, remedy="")
    assert not caplog.records
    check_exposure("0.0.0.0", name="node", protected=False, insecure=True, remedy="")
    assert "without authentication" in caplog.text
