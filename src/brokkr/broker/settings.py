"""
What can be configured about the broker, with units and defaults.

The sections and their keys are those of the configuration file: ``[broker]``,
``[broker.retention]``, ``[broker.work_types]`` and ``[database]``.
"""

import json
import re
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from brokkr.work.kinds import parse_kind
from brokkr.work.template import ALLOWED_KINDS, Kinds

_TYPE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,48}[A-Za-z0-9])?")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Days = Annotated[float, Field(ge=0, le=36500)]


class RetentionSettings(_Section):
    """``[broker.retention]``: how long what is finished is kept; 0 is for ever."""

    succeeded_days: _Days = Field(
        default=90, description="How long Work that succeeded is kept; 0: for ever, here and below."
    )
    failed_days: _Days = Field(default=180, description="The same for what failed.")
    cancelled_days: _Days = Field(default=90, description="The same for what was cancelled.")
    expired_days: _Days = Field(default=90, description="The same for what nobody claimed in time.")
    quarantined_days: _Days = Field(default=180, description="The same for what was quarantined.")
    payload_days: _Days = Field(
        default=0,
        description="How long templates are kept, if not as long as the Work; "
        "Work without one cannot be requeued.",
    )
    events_days: _Days = Field(
        default=0, description="How long events are kept, if not as long as the Work."
    )

    def age_of(self, what: str) -> timedelta | None:
        """Return how old an outcome, a payload or events become; None if they are kept."""
        days: float = getattr(self, f"{what}_days")
        return timedelta(days=days) if days else None


def _check_type(name: str) -> str:
    if name in ALLOWED_KINDS:
        raise ValueError("is built in, and cannot be defined anew")
    if not _TYPE_NAME.fullmatch(name):
        raise ValueError(
            "is no name of a work type: at most 50 of A-Z, a-z, 0-9, '-', '_' and '.', "
            "with a letter or digit at both ends"
        )
    return name


def _read_list(value: object) -> object:
    """Read what the environment can carry: a list as JSON, or with commas."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [each.strip() for each in value.split(",")]
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("begins like a JSON list and is none") from None


def _check_kind(text: str) -> str:
    parse_kind(text)
    return text


_Kinds = Annotated[
    list[Annotated[str, AfterValidator(_check_kind)]],
    BeforeValidator(_read_list),
    Field(min_length=1, max_length=50),
]


class BrokerSettings(_Section):
    """``[broker]``."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=3000, description="The port to listen on; 0 takes a free one."
    )
    data_dir: Path | None = Field(
        default=None, description="Where the embedded database lives, if no database.url is set."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="For people, or JSON; `auto`: for people on a terminal."
    )
    log_level: Literal["debug", "info", "warning"] = Field(
        default="info", description="What is less important is not logged."
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=1024 * 1024, description="Larger request bodies are refused."
    )
    stale_claim_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10, description="Between two looks for claims whose lease ran out."
    )
    max_lost_claims: Annotated[int, Field(ge=1)] = Field(
        default=3, description="The lost claim that puts a Work into quarantine."
    )
    handoff_base_delay_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=10,
        description="Wait before the first hand-off of a Work, in seconds; it doubles with each "
        "one. Also the wait after the second agent in a row has given a Work back because it "
        "cannot work in its cluster.",
    )
    handoff_max_delay_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=600,
        description="Longest such wait, in seconds; also the wait of a Work that all its agents "
        "have given back because they cannot work in their clusters.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        description="An admin's key to accept from the start: `brokkr_adm`, 10 of a-z and 2-7, "
        "`_`, and 43 random ones of A-Z, a-z, 0-9, `-` and `_`.",
    )
    metrics_open: bool = Field(
        default=True,
        description="Whether `/metrics` answers without a key; if not, an admin's or a viewer's.",
    )
    work_types: dict[Annotated[str, AfterValidator(_check_type)], _Kinds] = Field(
        default={},
        description="Work types beside `build`: by name, the kinds that a template may bring, as "
        '`job = ["batch/v1 Job", "v1 ConfigMap"]`. By environment '
        "`BROKKR__BROKER__WORK_TYPES__JOB`, a JSON list or with commas; a name with `-`, `.` or "
        "capitals only in the file.",
    )
    max_targets_per_generator: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=500,
        description="Maximum number of distinct targets that a generator has Work queued for; "
        "submissions for one more are answered 429.",
    )
    max_targets: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=20_000,
        description="The same for all generators and admins together.",
    )
    max_event_streams_per_caller: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=100,
        description="Maximum number of Works that one caller follows at once at this broker; "
        "all callers together, 1000.",
    )
    retention: RetentionSettings = RetentionSettings()

    @cached_property
    def kinds(self) -> Kinds:
        """Return by work type what a template may bring, built-in types included."""
        configured = {
            name: frozenset(map(parse_kind, kinds)) for name, kinds in self.work_types.items()
        }
        return {**ALLOWED_KINDS, **configured}


class DatabaseSettings(_Section):
    """``[database]``."""

    url: str | None = Field(
        default=None, description="PostgreSQL, 15 or newer; the embedded one if not set."
    )
    pool_size: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10, description="How many connections a broker opens at most."
    )
