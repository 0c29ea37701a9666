"""
The door to OpenTelemetry's library: spans leave in batches, by OTLP over HTTP.

Only :func:`brokkr.telemetry.exporting` imports this, and only when it is wanted.
"""

import os
from collections.abc import Sequence
from datetime import datetime
from threading import Thread
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from brokkr import __version__
from brokkr.work.redaction import redact, redact_all
from brokkr.work.trace import Span, TraceContext

_CLOSE_SECONDS: Final = 1.0
"""How long a collector that does not answer may keep the process from ending."""


class Exporter:
    """Sends spans to the collector that the environment names.

    Attributes:
        provider: Makes the spans of others, who know this library themselves.
    """

    def __init__(self, service: str) -> None:
        """Start to export."""
        self._ids = _GivenIds()
        name = os.environ.get("OTEL_SERVICE_NAME", service)
        self.provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: __version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._sender = _RedactingExporter()
        self.provider.add_span_processor(BatchSpanProcessor(self._sender))
        self._tracer = self.provider.get_tracer("brokkr", __version__)

    def current(self) -> TraceContext | None:
        """Return the span that is going on, if one is."""
        found = get_current_span().get_span_context()
        if not found.is_valid:
            return None
        return TraceContext(
            f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags.sampled
        )

    def export(self, span: Span) -> None:
        """Export a span that is over, if its trace is kept."""
        parent = NonRecordingSpan(
            SpanContext(
                int(span.parent.trace_id, 16),
                int(span.parent.span_id, 16),
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED if span.parent.is_sampled else 0),
            )
        )
        self._ids.next_span_id = int(span.context.span_id, 16)
        exported = self._tracer.start_span(
            span.name,
            context=set_span_in_context(parent),
            attributes=span.attributes,
            start_time=_nanoseconds(span.began_at),
        )
        if span.failure is not None:
            exported.set_status(Status(StatusCode.ERROR, span.failure))
        exported.end(_nanoseconds(span.ended_at))

    def close(self) -> None:
        """Send what is left, unless the collector does not take it in time."""
        last = Thread(target=self.provider.shutdown, daemon=True)
        last.start()
        last.join(_CLOSE_SECONDS)
        if last.is_alive():
            self._sender.shutdown()  # type: ignore[no-untyped-call]  # ends a wait for the next attempt
            last.join(_CLOSE_SECONDS)


class _RedactingExporter(OTLPSpanExporter):
    """Sends spans without credentials: a framework's span holds the text of any exception."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send them."""
        return super().export([_redacted(span) for span in spans])


def _redacted(span: ReadableSpan) -> ReadableSpan:
    status = span.status
    return ReadableSpan(
        name=redact(span.name),
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=redact_all(span.attributes or {}),
        events=[
            Event(each.name, redact_all(each.attributes or {}), each.timestamp)
            for each in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=Status(status.status_code, status.description and redact(status.description)),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class _GivenIds(RandomIdGenerator):
    """Gives the next span the id that it is to have."""

    def __init__(self) -> None:
        self.next_span_id: int | None = None

    def generate_span_id(self) -> int:
        given, self.next_span_id = self.next_span_id, None
        return super().generate_span_id() if given is None else given


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
