"""The port to an OpenTelemetry collector: spans go there in batches, from a thread of the library's, and never wait.

The library (the extra `otel`) is imported here alone, and only where a collector is configured.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yarl import URL

from router.config import TracingConfig
from runtime.links.process.settings import SettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

MOST_WAITING = 4096
TIMEOUT_S = 5.0
EVERY_S = 1.0
CLOSE_S = 1.0
_AT_ONCE = 64
"""Spans encoded in one go: meanwhile the event loop waits for the interpreter."""
_PATH = "/v1/traces"
_LIBRARY = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


class Collector:
    """`tracer` makes spans of the ids that `begin_trace` has named. At most 4096 spans wait; `dropped` counts those
    beyond, and those that the collector did not take within 5 s. Raises SettingsError."""

    def __init__(self, config: TracingConfig, *, name: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
            from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        except ImportError as error:
            raise SettingsError(
                f"tracing.endpoint is set, and {error.name} is not installed. Run pip install 'foothill[otel]'."
            ) from error
        room = self._room = _Room()
        url = endpoint_url(config.endpoint)
        exporter = OTLPSpanExporter(url, headers=_headers(config.headers_file), timeout=TIMEOUT_S)
        end: Callable[[], None] = exporter.shutdown
        self._end = end
        words = self._words = _Words(url)

        class Counted(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                result = exporter.export(spans)
                room.leave(len(spans), lost=result.value != 0)
                words.say(well=result.value == 0)
                return result

            def shutdown(self) -> None:
                end()

        class Bounded(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                if room.enter():
                    batches.on_end(span)

        class Ids(RandomIdGenerator):
            next_trace_id = 0

            def generate_trace_id(self) -> int:
                return self.next_trace_id

            def is_trace_id_random(self) -> bool:
                return False

        batches = self._batches = BatchSpanProcessor(
            Counted(),
            max_queue_size=MOST_WAITING,
            schedule_delay_millis=EVERY_S * 1000.0,
            max_export_batch_size=_AT_ONCE,
        )
        self._ids = Ids()
        resource = Resource.create({"service.name": config.service_name, "service.instance.id": name})
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(Bounded())
        self.tracer: Tracer = provider.get_tracer("foothill.router")

    @property
    def dropped(self) -> int:
        return self._room.dropped

    def begin_trace(self, trace_id: str) -> None:
        """The next span without a parent belongs to this trace."""
        self._ids.next_trace_id = int(trace_id, 16)

    async def close(self) -> None:
        """Sends what waits, for a second: a collector that is down must not keep the process."""
        closing = threading.Thread(target=self._batches.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)
        if closing.is_alive():
            self._end()
        self._words.forget()


class _Room:
    """How many spans wait. Spans come from the event loop, and leave in the library's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self.dropped = 0

    def enter(self) -> bool:
        with self._lock:
            full = self._waiting >= MOST_WAITING
            self.dropped += full
            self._waiting += not full
        return not full

    def leave(self, spans: int, *, lost: bool) -> None:
        with self._lock:
            self._waiting -= spans
            self.dropped += spans * lost


class _Words:
    """Says once that the collector is away, and once that it is back; the library would with every try."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._well = True
        self._why = "it gave no answer"
        logging.getLogger(_LIBRARY).addFilter(self._hear)

    def say(self, *, well: bool) -> None:
        if well == self._well:
            return
        self._well = well
        if well:
            log.info("%s takes spans again", self._url)
        else:
            log.warning("%s takes no spans: %s. They are dropped until it does", self._url, self._why)

    def forget(self) -> None:
        logging.getLogger(_LIBRARY).removeFilter(self._hear)

    def _hear(self, record: logging.LogRecord) -> bool:
        self._why = record.getMessage().rstrip(".")
        return False


def endpoint_url(endpoint: str) -> str:
    """With the path of the protocol where it has none of its own."""
    url = URL(endpoint)
    return str(url.with_path(_PATH)) if url.path in ("", "/") else endpoint


def _headers(path: str) -> dict[str, str]:
    """Of a file with lines `Name: value`, such as a token's. Raises SettingsError."""
    if not path:
        return {}
    try:
        lines = [line for line in Path(path).read_text("ascii").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"tracing.headers_file {path} cannot be read: {error}.") from error
    told = [line.partition(":") for line in lines]
    if not all(name.strip() and colon for name, colon, _ in told):
        raise SettingsError(f"tracing.headers_file {path}: write one header a line, as `Name: value`.")
    return {name.strip(): value.strip() for name, _, value in told}
