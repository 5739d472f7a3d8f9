"""All that is asked of cameras, row by row: `python -m benchmarks cameras`, with the assets' folder in
FOOTHILL_ASSETS."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from benchmarks.cameras import broker, cost, faults, full_disk, gate, held, offsite, uplink
from benchmarks.cameras.detector import person_detector
from benchmarks.cameras.full_disk import Told
from benchmarks.machine import Watch, pinned
from benchmarks.report import Report, report
from benchmarks.rounds import Profile, Rounds, shown
from benchmarks.rtsp.server import what_is_missing
from benchmarks.stage import Stage
from model_compiler.pack import Packed

NAME = "cameras"
NOTES = (
    "Clips: vtest.avi (768 x 576, people on a square), encoded as H.264 once and looped by GStreamer's RTSP server; "
    "the person detector of the assets (SSD, 300 px, ONNX). Node, server and benchmark share the two cores.",
    "`cost`: CPU of the node's process for each picture, all of them seen, over that of one process that decodes, "
    "resizes and runs the same ONNX file, and nothing else; rounds in turns.",
    "`streams held`: 99 % of the pictures of each stream are seen for 12 s. The node makes two runs at once, of one "
    "thread each; the peer one at a time, of two threads. The "
    "peer is Roboflow inference's InferencePipeline with a function of one's own (`init_with_custom_logic`), if "
    "`.venv-peer-roboflow` is there.",
    "`p95 at 70 %`: from capture, by the camera's clock, to the result, over decode and inference of the bare process.",
    "`bytes off site`: escalations (by the bundle's certificate), audits of 5 % (crops of tracks) and snapshots of "
    "rules, over a stream of 700 kbit/s, for all of the clip.",
    "`motion gate`: 20 s of people and 30 s of the last picture held, with the noise of a sensor (3 levels), twice; "
    "tracks of a second or more that the ungated run found.",
    "Faults last 12 s. One camera has them, and another is beside it: its rate during the fault over that before. "
    "`recovery`: until its pictures are seen again, against pauses of up to 2 s between attempts.",
    "`broker restart`: Mosquitto with persistence is killed (SIGKILL) for 12 s; a subscriber whose session outlives "
    "it, QoS 1, hears `cameras/#`, beside the node's own server-sent events. The rate is that of both cameras.",
    "`disk full`: state directory and log on a tmpfs of 64 MiB without a free page for 12 s; one camera has evidence, "
    "snapshots and clips to write (each as long as 5 s), and the one beside it none. Recovery: until all three are "
    "kept again, as the next of each comes. The cloud and a webhook's server are away all the time, and come "
    "afterwards. Needs root.",
    "`memory`: an hour's pictures (36,000), decoded as fast as they can be, every tenth seen: from a tenth of it to "
    "its end.",
)
_GOAL_COST, _GOAL_PEER, _GOAL_P95, _GOAL_BYTES, _GOAL_SAVED, _GOAL_BESIDE = 1.10, 1.5, 2.0, 0.01, 0.90, 0.05
_GOAL_GROWN = 1.05
_GOAL_ROOM_S = 10.0
_USUAL = 0.7
_FIRST = 5
_MIB = 1 << 20


class Row(msgspec.Struct, frozen=True):
    """`ok` where the figure reaches what is asked."""

    what: str
    figure: str
    reach: str
    ok: str


def measure_all(stage: Stage, profile: Profile) -> Report:
    bundle = person_detector(stage.work / "detector")
    rounds = Rounds[str]([])
    watch = Watch(stage.pids)
    rows = list(_rows(stage, profile, bundle, rounds))
    rounds.keep({}, watch.read())
    return report(NAME, rows, NOTES, [rounds])


async def measure(stage: Stage, profile: Profile) -> Report:
    """Raises SystemExit where GStreamer's server, or the assets, are missing."""
    missing = what_is_missing()
    if missing:
        raise SystemExit(missing)
    with pinned(stage.cores.server, stage.cores.client):
        return measure_all(stage, profile)


def _rows(stage: Stage, profile: Profile, bundle: Packed, rounds: Rounds[str]) -> Iterator[Row]:
    parts: list[Callable[[], Iterator[Row]]] = [
        lambda: _cost(stage, profile, bundle, rounds),
        lambda: _held(stage, bundle),
        lambda: _offsite(stage, bundle),
        lambda: _gate(stage, bundle),
        lambda: _faults(stage, bundle),
        lambda: _broker(stage, bundle),
        lambda: _full_disk(stage, bundle),
        lambda: _memory(stage, bundle),
    ]
    for part in parts:
        for row in part():
            print(f"{row.what}: {row.figure} ({row.reach})", flush=True)
            yield row


def _cost(stage: Stage, profile: Profile, bundle: Packed, rounds: Rounds[str]) -> Iterator[Row]:
    told = cost.measure(stage, profile, bundle, rounds)
    each = f"{told.ratio} ({shown(told.node_ms)} ms over {shown(told.bare_ms)} ms)"
    yield Row("cost", each, f"<= {_GOAL_COST}", _ok(told.ratio.median <= _GOAL_COST))


def _held(stage: Stage, bundle: Packed) -> Iterator[Row]:
    ours = held.held_here(stage, bundle, _FIRST)
    yield Row("streams held", f"{ours.streams} ({ours.then:.0%} of one more)", "reported", "")
    late = held.late_at(stage, bundle, max(1, round(_USUAL * ours.streams)))
    ours_ms, bare_ms = f"{late.p50_ms:.1f} and {late.p95_ms:.1f}", f"{late.bare_p50_ms:.1f} and {late.bare_p95_ms:.1f}"
    figure = f"{late.ratio} (p50 and p95 {ours_ms} ms, bare {bare_ms} ms)"
    yield Row(f"p95 at 70 % ({late.streams})", figure, f"<= {_GOAL_P95:g}x", _ok(late.ratio.median <= _GOAL_P95))
    peer = held.held_by_peer(stage, bundle, _FIRST)
    if peer is None:
        yield Row("streams, Roboflow", "not installed", f">= {_GOAL_PEER}x", "")
        return
    more = ours.streams / peer.streams if peer.streams else float("inf")
    yield Row("streams, Roboflow", f"{peer.streams}, so {more:.2f}x", f">= {_GOAL_PEER}x", _ok(more >= _GOAL_PEER))


def _offsite(stage: Stage, bundle: Packed) -> Iterator[Row]:
    told = offsite.measure(stage, bundle)
    figure = f"{1 - told.share:.2%} fewer ({told.sent} pictures, {told.sent_bytes} of {told.raw_bytes} bytes)"
    yield Row("bytes off site", figure, f">= {1 - _GOAL_BYTES:.0%} fewer", _ok(told.share <= _GOAL_BYTES))


def _gate(stage: Stage, bundle: Packed) -> Iterator[Row]:
    told = gate.measure(stage, bundle)
    figure = f"{told.saved:.1%} saved, {told.lost} of {told.tracks} tracks lost"
    yield Row("motion gate", figure, f">= {_GOAL_SAVED:.0%}, 0", _ok(told.saved >= _GOAL_SAVED and not told.lost))


def _faults(stage: Stage, bundle: Packed) -> Iterator[Row]:
    for told in faults.measure(stage, bundle):
        most_s = 2 * faults.BACK_OFF_S
        is_ok = abs(told.beside - 1) <= _GOAL_BESIDE and told.recovery_s <= most_s
        figure = f"{told.beside:.3f} beside, recovery {told.recovery_s:.1f} s"
        yield Row(told.fault, figure, f"1 +- {_GOAL_BESIDE}, {most_s:g} s", _ok(is_ok))
    cut = uplink.measure(stage, bundle)
    figure = f"{cut.spooled} waited, {cut.amended} amended, {cut.doubled} twice"
    yield Row("uplink cut", figure, "all, none twice", _ok(cut.spooled == cut.amended > 0 == cut.doubled))


def _broker(stage: Stage, bundle: Packed) -> Iterator[Row]:
    told, most_s = broker.measure(stage, bundle), 2 * broker.BACK_OFF_S
    reach = f"1 +- {_GOAL_BESIDE}, {most_s:g} s, none"
    if told is None:
        yield Row("broker restart", "not measured: Mosquitto is not installed", reach, "")
        return
    is_kept = told.lost == told.doubled == told.late == 0 < told.away
    is_ok = abs(told.rate - 1) <= _GOAL_BESIDE and told.recovery_s <= most_s and is_kept
    figure = (
        f"{told.rate:.3f} of the rate before, recovery {told.recovery_s:.1f} s; of {told.said} events, {told.away} of "
        f"them meanwhile, {told.lost} lost, {told.doubled} twice, {told.late} late"
    )
    yield Row("broker restart", figure, reach, _ok(is_ok))


def _full_disk(stage: Stage, bundle: Packed) -> Iterator[Row]:
    told = full_disk.measure(stage, bundle)
    if told is None:
        yield Row("disk full", "not measured: only root mounts a small disk", f"1 +- {_GOAL_BESIDE}", "")
        return
    figure = (
        f"{told.beside:.3f} beside, recovery {told.recovery_s:.1f} s; {told.before} events before, {told.during} then"
    )
    is_ok = abs(told.beside - 1) <= _GOAL_BESIDE and told.recovery_s <= _GOAL_ROOM_S and 2 * told.during > told.before
    yield Row("disk full", figure, f"1 +- {_GOAL_BESIDE}, {_GOAL_ROOM_S:g} s", _ok(is_ok))
    yield _kept("evidence", told.evidence, f" ({told.not_kept} more found no room)")
    yield _kept("webhook", told.webhook)
    yield _kept("departures", told.departures)
    broken = ", ".join(told.unwhole) or "nothing"
    is_whole = told.clips > 0 and not told.unwhole
    yield Row("disk full, files", f"{told.clips} clips play, {broken} broken", "nothing", _ok(is_whole))


def _kept(what: str, told: Told, more: str = "") -> Row:
    figure = f"{told.due}, {told.lost} lost, {told.doubled} twice{more}"
    return Row(f"disk full, {what}", figure, "none", _ok(told.lost == told.doubled == 0 < told.due))


def _memory(stage: Stage, bundle: Packed) -> Iterator[Row]:
    for told in (faults.reconnects(stage, bundle), faults.hour(stage, bundle)):
        grown = told.late.rss_bytes / told.early.rss_bytes
        figure = (
            f"{told.early.rss_bytes / _MIB:.0f} to {told.late.rss_bytes / _MIB:.0f} MiB, "
            f"{told.early.threads} to {told.late.threads} threads"
        )
        is_flat = grown <= _GOAL_GROWN and told.late.threads <= told.early.threads + 2
        yield Row(f"memory, {told.what}", figure, "flat", _ok(is_flat))


def _ok(is_ok: bool) -> str:
    return "yes" if is_ok else "NO"
