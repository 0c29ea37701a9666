"""What a collector gets to see."""

import asyncio
import contextlib
import threading
from datetime import timedelta

import pytest

from brokkr.otlp import Exporter
from brokkr.telemetry import exporting
from brokkr.work.trace import Span, TraceContext
from support.collector import collecting
from support.factories import NOON

PARENT = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)


def a_span(parent: TraceContext = PARENT, failure: str | None = None) -> Span:
    return Span(
        name="build",
        context=parent.child("build"),
        parent=parent,
        began_at=NOON,
        ended_at=NOON + timedelta(seconds=90),
        attributes={"brokkr.work.round": 2, "brokkr.work.type": "build"},
        failure=failure,
    )


async def export(*spans: Span) -> None:
    """Export from a thread, as the collector is served by this one."""

    def work() -> None:
        with exporting("a-service") as exporter:
            assert exporter is not None
            for span in spans:
                exporter.export(span)

    await asyncio.to_thread(work)


async def test_a_span_arrives_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await export(a_span(failure="PodEvicted"))

    [span] = collector.spans
    assert (span.service, span.name, span.seconds) == ("a-service", "build", 90)
    assert (span.trace_id, span.parent_id) == (PARENT.trace_id, PARENT.span_id)
    assert span.span_id == PARENT.child("build").span_id
    assert span.attributes == {"brokkr.work.round": 2, "brokkr.work.type": "build"}
    assert span.error == "PodEvicted"


async def test_the_service_s_name_is_the_environment_s_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
        await export(a_span())

    assert [span.service for span in collector.spans] == ["theirs"]


async def test_a_trace_that_is_not_kept_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    unsampled = TraceContext(PARENT.trace_id, PARENT.span_id, is_sampled=False)
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await export(a_span(unsampled), a_span())

    assert len(collector.spans) == 1


def test_what_a_collector_that_is_away_does_not_take_is_given_up_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    others = set(threading.enumerate())
    exporter = Exporter("a-service")
    exporter.export(a_span())
    exporter.close()

    assert set(threading.enumerate()) <= others


async def test_no_credential_reaches_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        with exporting("a-service") as exporter:
            assert exporter is not None
            # As the framework does it for a request that fails.
            tracer = exporter.provider.get_tracer("framework")
            with (
                contextlib.suppress(ValueError),
                tracer.start_as_current_span("GET", attributes={"url.query": "token=hunter2"}),
            ):
                raise ValueError("postgresql://brokkr:hunter2@db/brokkr")
            exporter.export(a_span(failure="password=hunter2"))

    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        await asyncio.to_thread(work)

    assert len(collector.spans) == 2
    assert b"ValueError" in b"".join(collector.bodies)
    assert b"hunter2" not in b"".join(collector.bodies)
