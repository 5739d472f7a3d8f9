"""Which source an address is for."""

from __future__ import annotations

import logging
from contextlib import closing
from typing import TYPE_CHECKING

from edge_node.cameras.sources.address import Address, Kind
from edge_node.cameras.sources.http_login import DENIED, auth_for
from edge_node.cameras.sources.pattern import Pattern
from edge_node.cameras.sources.rtsp.description import Unfit
from edge_node.cameras.sources.rtsp.session import Session
from edge_node.cameras.sources.snapshots import Folder, Snapshots
from edge_node.cameras.sources.source import Corrupt, Source, Tap
from edge_node.cameras.sources.trouble import Trouble, without
from edge_node.cameras.sources.wishes import Wishes

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

_SINGLE: dict[Kind, str] = {"snapshot": "a snapshot", "folder": "a folder", "pattern": "a test pattern"}
_NO_AV = "PyAV is not installed: pip install 'foothill[cameras]'"


def open_source(
    address: Address, login: tuple[str, str], wishes: Wishes, *, corrupt: Corrupt, tap: Tap | None = None
) -> Source:
    """Blocks until it is open. `login` is the user and the password, "" for none. Raises Trouble."""
    kind = _asked(address, login, wishes) if address.kind == "http" else address.kind
    address = address._replace(kind=kind)
    if tap is not None and kind in _SINGLE:
        tap.refuse(f"{_SINGLE[kind]} sends pictures, not a stream that could be recorded as it is")
    if kind == "snapshot":
        return Snapshots(address, login, wishes, corrupt)
    if kind == "folder":
        return Folder(address, wishes, corrupt)
    if kind == "pattern":
        return Pattern(address, wishes)
    return _stream(address, login, wishes, corrupt, tap)


def _stream(address: Address, login: tuple[str, str], wishes: Wishes, corrupt: Corrupt, tap: Tap | None) -> Source:
    from edge_node.cameras.sources.stream import Stream

    try:
        if address.url.startswith("rtsp:") and wishes.demuxer == "auto":
            return _rtsp(address, login, wishes, corrupt, tap)
        return Stream(address, login, wishes, corrupt, tap)
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise Trouble("denied", _NO_AV) from None


def _rtsp(address: Address, login: tuple[str, str], wishes: Wishes, corrupt: Corrupt, tap: Tap | None) -> Source:
    from edge_node.cameras.sources.rtsp.camera import Camera
    from edge_node.cameras.sources.stream import Stream

    session = Session(address.url, login, wishes, corrupt)
    try:
        session.set_up()
        return Camera(session, wishes, corrupt, tap)
    except Unfit as unfit:
        log.info("%s: %s: FFmpeg reads it", address.shown, unfit)
        with closing(session):  # what a camera has prepared for one caller is there for the next
            return Stream(address, login, wishes, corrupt, tap)
    except BaseException:
        session.close()
        raise


def _asked(address: Address, login: tuple[str, str], wishes: Wishes) -> Kind:
    """By what it says it sends: one picture, pictures one after another, or a stream of some other kind."""
    import httpx

    try:
        with httpx.Client(timeout=wishes.open_timeout_s, trust_env=False) as client:
            told = _first_words(client, address.url, None)
            if told.status_code == 401 and login[0]:
                told = _first_words(client, address.url, auth_for(told, login))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Trouble("lost", without((login[1],), str(error) or type(error).__name__)) from None
    if told.status_code in (401, 403):
        raise Trouble("denied", DENIED)
    if told.status_code != 200:
        raise Trouble("lost", f"it answers with status {told.status_code}")
    sent = told.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if sent.startswith("image/"):
        return "snapshot"
    return "mjpeg" if sent == "multipart/x-mixed-replace" else "http"


def _first_words(client: httpx.Client, url: str, auth: httpx.Auth | None) -> httpx.Response:
    with client.stream("GET", url, auth=auth) as told:
        return told
