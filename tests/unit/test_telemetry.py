"""When spans are exported, and what that costs when they are not."""

import subprocess
import sys

import pytest

from brokkr.telemetry import TelemetryUnavailable, exporting

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def _nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENDPOINT, "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {ENDPOINT: ""},
        {ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"},
        {ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_exported_unless_it_is_asked_for(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with exporting("a service") as exporter:
        assert exporter is None


def test_a_protocol_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    with pytest.raises(TelemetryUnavailable, match="grpc"), exporting("a service"):
        pass


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    # So the import system is told that there is no such module.
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "brokkr.otlp", raising=False)

    with (
        pytest.raises(TelemetryUnavailable, match=r"pip install 'brokkr\[otel\]'"),
        exporting("a service"),
    ):
        pass


def test_while_it_is_off_nothing_of_it_is_imported() -> None:
    program = """
import sys
import brokkr.cli.main, brokkr.telemetry
with brokkr.telemetry.exporting("a service"):
    print(*(each for each in sys.modules if each.startswith(("opentelemetry.sdk", "google"))))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == []
