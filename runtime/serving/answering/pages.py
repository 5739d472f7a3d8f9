"""The bodies of the answers to one run: every output is turned into bytes once, and each request gets its part."""

from __future__ import annotations

from typing import NamedTuple

from runtime.serving.models.forms import Form, Forms
from runtime.serving.models.shared_run import Whole


class _Plan(NamedTuple):
    """The JSON that begins each body, and of each output in it all bytes and those of a row."""

    head: bytes
    outputs: list[tuple[bytes, int]]


class Pages:
    """For requests in known forms, answered as such were before."""

    def __init__(self, forms: Forms, whole: Whole) -> None:
        self._forms = forms
        self._whole = whole
        self._plans: dict[int, _Plan | None] = {}

    def body(self, form: Form, at: int) -> tuple[bytes, int] | None:
        """Of the answer to the request at that place, and the bytes of JSON in it; None where it is not that plain."""
        plan = self._plans.get(id(form))
        if plan is None:
            if id(form) in self._plans:
                return None
            plan = self._plans[id(form)] = self._plan(form)
            if plan is None:
                return None
        head, ends = plan.head, self._whole.ends
        start, end = (ends[at - 1] if at else 0, ends[at]) if ends else (0, 1)
        if len(plan.outputs) == 1:
            taken, size = plan.outputs[0]
            return head + taken[start * size : end * size], len(head)
        return b"".join([head, *[taken[start * size : end * size] for taken, size in plan.outputs]]), len(head)

    def _plan(self, form: Form) -> _Plan | None:
        wanted, ends = form.wishes[0], self._whole.ends
        arrays = [self._whole.outputs[want.name] for want in wanted]
        shapes = [(array.dtype, (form.rows, *array.shape[1:]) if ends else array.shape) for array in arrays]
        head = self._forms.head(wanted, shapes)
        rows = ends[-1] if ends else 1
        return None if head is None else _Plan(head, [(array.tobytes(), array.nbytes // rows) for array in arrays])
