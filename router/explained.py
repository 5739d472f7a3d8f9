"""An explanation as a person reads it: two lines a node, how a lease counts it and how a proxied request does."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.explain import Candidate, Expected, Explanation

_LEGEND = (
    "ms = rtt (of n measured) + body + service x in line + failed, 90 % within 9 of 10",
    "in line = own + others + 1 - drained, at least 1",
)


def show(found: Explanation, console: Console) -> None:
    """Within 100 columns where names are at most 18 characters long."""
    who = f"{found.address or 'nobody'} ({_place(found)})"
    console.print(f"{found.model} for {who}, asked of {found.router}{_asked(found)}", highlight=False)
    console.print(_table(found))
    for line in _LEGEND:
        console.print(Text(line, style="dim"))
    leased, proxied = found.leased_to or "no node", found.proxied_to or "no node"
    console.print(f"best for a lease: {leased}; best for a proxied request: {proxied}", highlight=False)
    region = f" ({found.cloud_region})" if found.cloud_region else ""
    console.print(f"cloud: {'open' if found.cloud else 'closed'}{region}", highlight=False)
    if found.unidentified:
        console.print(f"without a verified identity: {', '.join(found.unidentified)}", highlight=False)


def _table(found: Explanation) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=0)
    table.add_column("node", no_wrap=True)
    table.add_column("way", no_wrap=True)
    for name in ("rtt (n)", "body", "service", "in line", "failed", "ms", "9 of 10"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("against it", overflow="fold")
    for each in found.candidates:
        leased, proxied = _terms(each, each.leased, each.samples), _terms(each, each.proxied, each.router_samples)
        table.add_row(each.node, "lease", *leased, _against(each, each.leased_refusal))
        table.add_row(Text(each.region, style="dim"), "proxy", *proxied, _against(each, each.proxied_refusal))
    return table


def _terms(each: Candidate, way: Expected, measured: int) -> tuple[str, ...]:
    return (
        f"{way.rtt_ms:.1f} ({measured})",
        f"{way.transfer_ms:.1f}",
        f"{way.service_ms:.1f}",
        f"{each.own_in_flight}+{each.others_in_flight:.1f}+1-{way.drained:.1f}",
        f"{way.failures_ms:.1f}",
        f"{way.total_ms:.1f}",
        f"{way.within_ms:.1f}",
    )


def _against(each: Candidate, refused: str | None) -> str:
    """What refuses it, and what has it get less than its share."""
    slow = f"slow start {each.share:.0%}" if each.share < 1.0 else ""
    probing = each.circuit if each.circuit == "probing" else ""
    return ", ".join(reason for reason in (refused, slow, probing) if reason)


def _asked(found: Explanation) -> str:
    size = f", {found.size_bytes} bytes" if found.size_bytes else ""
    return size + (f", within {found.deadline_ms:g} ms" if found.deadline_ms is not None else "")


def _place(found: Explanation) -> str:
    if found.place is None:
        return "unknown place, so by load alone"
    near = f"{found.place.lat:.2f}, {found.place.lon:.2f}"
    if found.place_source == "caller":
        return f"{near} as told"
    return f"{near} by GeoIP, give or take {found.place_error_km or 0:.0f} km"
