"""What is known of a request before any of it is looked at: others had its very head, and maybe its form."""

from __future__ import annotations

from runtime.links.http.exchanges import Body, Known
from runtime.serving.answering.answers import Told
from runtime.serving.models.forms import Form
from runtime.serving.models.hosting import ModelHost, Served


class Ready:
    """The head of a request, and what it means for all that have the very same.

    `served` is what the last form was looked for in; None where what is asked for is not served. The JSON of a body has
    `json_bytes`.
    """

    __slots__ = ("_form", "_host", "json_bytes", "request", "served", "told")

    def __init__(self, host: ModelHost, request: Known, told: Told, json_bytes: int) -> None:
        self._host = host
        self._form: Form | None = None
        self.served: Served | None = None
        self.request = request
        self.told = told
        self.json_bytes = json_bytes

    def form(self, body: Body) -> Form | None:
        """Of a whole body; None for what is new here, or is not served."""
        served, form = self._host.models.get(self.told.model), self._form
        known = served is self.served and form is not None and len(body) == form.body_bytes
        if form is not None and known and body[: len(form.json)] == form.json:
            return form
        self._form = self.find(bytes(body[: self.json_bytes]), len(body))
        return self._form

    def find(self, json: bytes, body_bytes: int) -> Form | None:
        """Of a body with this JSON that is so long."""
        served = self._host.models.get(self.told.model)
        if served is not None and self.told.version not in ("", served.loaded.manifest.version):
            served = None
        self.served = served
        return served.forms.find(json, body_bytes) if served is not None else None
