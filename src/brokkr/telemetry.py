"""
Spans for an OpenTelemetry collector, if the environment names one.

Asked for with the standard variables: ``OTEL_EXPORTER_OTLP_ENDPOINT`` switches it on, and
the others (headers, sampler, resource attributes, …) mean what they mean everywhere.
While it is off nothing of it is imported; :mod:`brokkr.otlp` is what knows the library.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from brokkr.work.errors import BrokkrError

if TYPE_CHECKING:
    from brokkr.otlp import Exporter

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"


class TelemetryUnavailable(BrokkrError):
    """Traces are to be exported, and cannot be."""

    code = "telemetry_unavailable"


@contextmanager
def exporting(service: str) -> "Iterator[Exporter | None]":
    """
    Export spans for the length of the block; None if nobody has asked for that.

    Args:
        service: What the spans are said to be of, unless ``OTEL_SERVICE_NAME`` says it.

    Raises:
        TelemetryUnavailable: It is asked for, and the packages for it are missing.
    """
    if not _is_wanted(os.environ):
        yield None
        return
    try:
        from brokkr.otlp import Exporter  # noqa: PLC0415  (costs nothing while it is off)
    except ImportError as error:
        raise TelemetryUnavailable(
            "the environment names an OpenTelemetry collector, and what speaks to one is not "
            f"installed ({error}); pip install 'brokkr[otel]', or set OTEL_SDK_DISABLED=true"
        ) from error
    exporter = Exporter(service)
    try:
        yield exporter
    finally:
        exporter.close()


def _is_wanted(environment: Mapping[str, str]) -> bool:
    if (
        not any(environment.get(name) for name in _ENDPOINTS)
        or environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environment.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return False
    protocol = next((environment[name] for name in _PROTOCOLS if environment.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        raise TelemetryUnavailable(f"traces are exported by {_PROTOCOL}, and not by {protocol}")
    return True
