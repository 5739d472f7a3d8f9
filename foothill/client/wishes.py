"""Requests as a caller wants them, before anybody is chosen to answer them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import TypedDict

import msgspec

from contracts import headers
from contracts.headers import Escalation
from contracts.oip import HEADER_LENGTH
from foothill.client.answers import MSGPACK
from foothill.client.lease_book import Subject
from foothill.client.tensors import Given, encode_request

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


class Wish(msgspec.Struct, frozen=True):
    """One request, addressed to nobody yet. `deadline_ms` None: the client's default."""

    subject: Subject
    path: str
    headers: dict[str, str]
    body: bytes
    request_id: str
    deadline_ms: float | None = None


class Terms(TypedDict):
    """What a caller may ask of one request; `residency` lists region names, None is no claim; `capabilities` are what
    a node has to have."""

    escalation: Escalation
    residency: Sequence[str] | None
    deadline_ms: float | None
    capabilities: Sequence[str]


def new_id() -> str:
    return uuid.uuid4().hex


def predict(model: str, image: bytes, media_type: str | None, own: Mapping[str, str], terms: Terms) -> Wish:
    """A request for `/v1/predict/{model}`; `own` are the client's own headers.

    Raises ValueError when `media_type` is None and the bytes are no JPEG and no PNG.
    """
    content = {"Content-Type": media_type or _sniff(image), "Accept": MSGPACK}
    return _wish(model, f"/v1/predict/{model}", dict(own) | content, image, terms)


def infer(
    model: str, inputs: Mapping[str, Given], outputs: Sequence[str], own: Mapping[str, str], terms: Terms
) -> Wish:
    """A request for `/v2/models/{model}/infer`. Raises ValueError for an input that is no tensor."""
    body, head_length = encode_request(inputs, outputs)
    content = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(head_length)}
    return _wish(model, f"/v2/models/{model}/infer", dict(own) | content, body, terms)


def _wish(model: str, path: str, sent: dict[str, str], body: bytes, terms: Terms) -> Wish:
    if not _NAME.fullmatch(model):
        raise ValueError(f"{model!r} is not a model name: letters, digits, '.', '_' and '-' only.")
    subject = Subject.of(model, terms["residency"], terms["capabilities"])
    request_id = new_id()
    sent |= {headers.REQUEST_ID: request_id, headers.ESCALATION: terms["escalation"]} | subject.headers
    return Wish(subject, path, sent, bytes(body), request_id, terms["deadline_ms"])


def _sniff(image: bytes) -> str:
    for magic, media_type in _MAGIC.items():
        if bytes(image[: len(magic)]) == magic:
            return media_type
    raise ValueError("These bytes are no JPEG and no PNG; give media_type= to send something else.")
