"""
Stands in for an OpenTelemetry collector: takes OTLP over HTTP, and keeps the spans.

What arrives is decoded as the protocol says, from its own protobuf messages.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True)
class Received:
    """One span as it arrived; ids are hexadecimal, as in headers."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str | int]
    error: str | None
    seconds: float


@dataclass
class Collector:
    """What has arrived."""

    url: str
    spans: list[Received] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def of(self, trace_id: str) -> dict[str, Received]:
        """Return the spans of one trace by their names."""
        return {span.name: span for span in self.spans if span.trace_id == trace_id}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """Listen on a free port until the block is left."""
    collector = Collector("")

    async def take(request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        collector.bodies.append(await request.read())
        message = ExportTraceServiceRequest.FromString(collector.bodies[-1])
        collector.spans += _spans(message)
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()


def _spans(message: ExportTraceServiceRequest) -> list[Received]:
    return [
        Received(
            service=str(_values(resource.resource.attributes)["service.name"]),
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes=_values(span.attributes),
            error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else None,
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        )
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _values(attributes: "list[KeyValue]") -> dict[str, str | int]:
    return {
        each.key: each.value.int_value
        if each.value.WhichOneof("value") == "int_value"
        else each.value.string_value
        for each in attributes
    }
