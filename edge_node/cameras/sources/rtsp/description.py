"""What a camera says it sends (SDP, RFC 8866): which of its streams is the video, and how it is packed."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from typing import Literal, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from edge_node.cameras.sources.trouble import Trouble

Codec = Literal["h264", "hevc"]

_CODECS: dict[str, Codec] = {"H264": "h264", "H265": "hevc"}
_SETS = {"h264": ("sprop-parameter-sets",), "hevc": ("sprop-vps", "sprop-sps", "sprop-pps")}
_MOST_LINES = 2000
_START = b"\0\0\0\1"
NO_VIDEO = "there is no video in it: correct the address, or choose another stream"


class Unfit(Exception):  # noqa: N818 - FFmpeg may well read it
    """It is sent in a way that is not read here."""


class Video(NamedTuple):
    """`control` is the address to set it up by; `sets` its parameter sets, in Annex B, "" where it tells none; `kind`
    the payload type of its packets, `rate` how many ticks its clock has in a second."""

    control: str
    codec: Codec
    kind: int
    rate: int
    sets: bytes = b""


def video_of(text: str, base: str) -> Video:
    """The first of the video streams. `base` is what addresses in it are relative to. Raises Trouble and Unfit."""
    lines = [line.strip() for line in text.splitlines()[:_MOST_LINES]]
    media = [at for at, line in enumerate(lines) if line.startswith("m=")]
    found = next((at for at in media if lines[at].startswith("m=video ")), None)
    if found is None:
        raise Trouble("lost", NO_VIDEO)
    end = next((at for at in media if at > found), len(lines))
    attributes = [line[2:] for line in lines[found:end] if line.startswith("a=")]
    session = [line[2:] for line in lines[: media[0]] if line.startswith("a=")]
    whole = joined(base, _attribute(session, "control") or "*")
    parts = lines[found].split()
    if len(parts) < 4 or parts[2] not in ("RTP/AVP", "RTP/AVP/UDP", "RTP/AVP/TCP", "RTP/AVPF"):
        raise Unfit(f"it is sent as {' '.join(parts[2:3])[:40]}")
    return _packed(joined(whole, _attribute(attributes, "control") or "*"), parts[3], attributes)


def joined(base: str, control: str) -> str:
    """Cameras leave out the slash at the end of a base, even behind a query, and mean one."""
    if control == "*":
        return base
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", control):
        return control
    if control.startswith("/"):
        return urlunsplit((*urlsplit(base)[:2], control, "", ""))
    return f"{base.rstrip('/')}/{control}"


def _packed(control: str, kind: str, attributes: list[str]) -> Video:
    mapped = next((line for line in attributes if line.startswith(f"rtpmap:{kind} ")), "")
    name, _, rate = mapped.partition(" ")[2].strip().partition("/")
    codec = _CODECS.get(name.strip().upper())
    rate = rate.partition("/")[0]
    if codec is None or not (kind.isdecimal() and rate.isascii() and rate.isdecimal()) or not int(rate[:9]) > 0:
        raise Unfit(f"it is {name[:40] or 'of a codec that is not named'}")
    told = dict(_parameters(next((line for line in attributes if line.startswith(f"fmtp:{kind} ")), "")))
    if told.get("packetization-mode", "0") == "2" or told.get("sprop-max-don-diff", "0") != "0":
        raise Unfit("its packets are interleaved")
    return Video(control, codec, int(kind[:3]), int(rate[:9]), _sets(codec, told))


def _attribute(lines: list[str], name: str) -> str:
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")


def _parameters(line: str) -> list[tuple[str, str]]:
    told = (each.partition("=") for each in line.partition(" ")[2].split(";"))
    return [(name.strip().lower(), value.strip()) for name, _, value in told]


def _sets(codec: Codec, told: dict[str, str]) -> bytes:
    units = [unit for name in _SETS[codec] for unit in told.get(name, "").split(",") if unit]
    try:
        return b"".join(_START + b64decode(unit, validate=True) for unit in units)
    except (Error, ValueError):
        return b""
