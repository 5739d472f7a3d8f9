from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runtime.links.process import ports
from runtime.links.process.ports import check_free, free_ports


def outgoing_ports() -> range:
    first, last = ports._RANGE.read_text().split()
    return range(int(first), int(last) + 1)


def test_free_ports_are_distinct_and_can_be_listened_on() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    for port in found:
        with socket.create_server(("127.0.0.1", port)):
            pass


@pytest.mark.skipif(ports._ephemeral_floor() <= ports._LOWEST, reason="outgoing connections have all ports here")
def test_no_outgoing_connection_is_given_one() -> None:
    assert not set(free_ports(50)) & set(outgoing_ports())


@pytest.mark.parametrize(("said", "floor"), [("32768\t60999\n", 32_768), ("nothing", 32_768), ("", 32_768)])
def test_a_system_that_does_not_tell_is_taken_for_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, floor: int
) -> None:
    (tmp_path / "range").write_text(said)
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "range")
    assert all(port < floor for port in free_ports(5))


def test_where_outgoing_connections_have_every_port_one_of_theirs_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "range").write_text("1024 65535")
    monkeypatch.setattr(ports, "_RANGE", tmp_path / "range")
    assert len(set(free_ports(5))) == 5


def test_a_taken_port_and_a_strangers_host_are_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        check_free("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(OSError, match="assign"):
        free_ports(1, "192.0.2.1")
    check_free("127.0.0.1", free_ports(1)[0])
