"""What an operator names, and what is told when it does not fit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from contracts.acceptance import CHECKS
from hil.boards import Action, Board, Boards, find
from hil.commands import act, command_of, over, run
from hil.keys import create, read_private, read_public
from hil.opening import Options, opened, skipped
from runtime.links.http.upstream import Upstreams
from runtime.links.process.settings import SettingsError, load
from runtime.links.trust.signatures import public_key

EXAMPLE = Path(__file__).parents[2] / "examples" / "boards.toml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "boards.toml"
    path.write_text(text)
    return path


def test_the_example_loads() -> None:
    boards = load(EXAMPLE, Boards).boards
    assert {board.target for board in boards.values()} >= {"cpu-x86", "jetson-orin-nano"}


def test_an_unknown_board_is_told_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="has no board 'x'; it has local, orin-1"):
        find(EXAMPLE, "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[boards.a]\ntarget = 'pdp-11'", "not in the board table"),
        ("[boards.a]\nrestart = { argv = ['x'], http = 'http://y' }", "exactly one of"),
        ("[boards.a]\nrestart = { }", "exactly one of"),
        ("[boards.a]\npower_off = { argv = ['x'] }", "belong together"),
        ("[boards.a]\nsensors = ['nose']", "nose"),
        ("[boards.a]\nsensors_ssh = '-oProxyCommand=x'", "no user@host"),
        ("[boards.a]\nrestart = { systemd = 'x', ssh = '-x' }", "no user@host"),
        ("[boards.a]\nlimits = { p99_ms = 0 }", "p99_ms"),
        ("[boards.a]\nlimit = { p99_ms = 1 }", "unknown key `limit`"),
        ("[board.a]", "Did you mean `boards`"),
    ],
)
def test_an_entry_out_of_form_is_told_by_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError, match=told) as raised:
        find(path, "a")
    assert str(path) in str(raised.value)


def test_limits_of_a_model_go_before_those_of_the_board(tmp_path: Path) -> None:
    board = find(written(tmp_path, "[boards.a.limits]\np99_ms = 50\n[boards.a.models.digits]\np99_ms = 5\n"), "a")
    assert (board.p99_ms("digits"), board.p99_ms("faces")) == (5.0, 50.0)
    assert board.min_throughput("digits") == 1.0


def test_what_is_missing_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FOOTHILL_ADMIN_TOKEN", raising=False)
    for options, told in (
        (Options(), "Give --node URL"),
        (Options(board="a"), "There is no boards.toml here"),
        (Options(node="board:8100"), "--node 'board:8100' is no URL"),
        (Options(node="http://"), "is no URL"),
        (Options(node="http://a:b"), "is no URL"),
        (Options(node="http://a", fleet="nowhere"), "--fleet 'nowhere' is no URL"),
        (Options(node="http://a", fleet="http://b"), "--fleet-token"),
        (Options(node="http://a", admin_token=Path("none")), "admin_token_file none cannot be read"),
        (Options(board="a", boards=Path("none.toml")), "none.toml: cannot be read"),
    ):
        with pytest.raises(SettingsError, match=told):
            opened(options)
    assert opened(Options(board="a", node="http://a")).entry == Board()


def test_only_leaves_what_the_rest_builds_on() -> None:
    assert skipped("golden", "") == set(CHECKS) - {"golden", "ready", "metadata", "identity", "restored"}
    assert skipped("", "soak, curve") == {"soak", "curve"}
    assert "restored" not in skipped("", "restored")
    with pytest.raises(SettingsError, match="no check is called gold"):
        skipped("gold", "")


def test_keys_are_made_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "hil.key"
    public = create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_key(read_private(path)) == public == read_public(f"{path}.pub") == read_public(public)
    with pytest.raises(SettingsError, match="there already"):
        create(path)
    with pytest.raises(SettingsError, match="cannot be written"):
        create(tmp_path / "none" / "key")
    (tmp_path / "short").write_text("abcd\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("short", "bytes", "missing"):
        with pytest.raises(SettingsError):
            read_private(tmp_path / name)
        with pytest.raises(SettingsError):
            read_public(str(tmp_path / name))


def test_a_systemd_unit_is_killed_first_and_quoted() -> None:
    assert command_of(Action(systemd="foothill-edge")) == (
        "sh",
        "-c",
        "systemctl kill --signal=SIGKILL -- foothill-edge && systemctl restart -- foothill-edge",
    )
    argv = over("jetson@board", command_of(Action(systemd="a b; rm")))
    assert argv[:6] == ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "jetson@board")
    assert len(argv) == 8


async def test_commands_are_bounded_and_their_failures_told(tmp_path: Path) -> None:
    assert await run(("sh", "-c", "echo hello"), timeout_s=20.0) == "hello\n"
    for argv, told in (
        (("sh", "-c", "echo broken >&2; exit 3"), "ended with 3: broken"),
        (("/nowhere/at/all",), "does not start"),
        (("sleep", "60"), "took more than 0.2 s"),
    ):
        with pytest.raises(Exception, match=told):
            await run(argv, timeout_s=0.2 if argv[0] == "sleep" else 20.0)
    loud = await run(("sh", "-c", "yes | head -c 5000000; echo end"), timeout_s=20.0)
    assert len(loud) < 2 << 20


async def test_what_a_command_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    """As the restart of a node does, which holds its output open for as long as the node lives."""
    file = tmp_path / "pid"
    await run(("sh", "-c", f"sleep 60 & echo $! > {file}"), timeout_s=20.0)
    pid = int(file.read_text())
    os.kill(pid, 9)


async def test_a_relay_that_is_away_is_named() -> None:
    upstreams = Upstreams()
    try:
        with pytest.raises(Exception, match=r"the relay 127\.0\.0\.1:9"):
            await act(Action(http="http://127.0.0.1:9/outlet/3?cycle"), upstreams)
        with pytest.raises(Exception, match="token_file"):
            await act(Action(http="http://127.0.0.1:9/", token_file="/nowhere"), upstreams)
    finally:
        await upstreams.close()
