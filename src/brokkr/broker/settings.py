"""
What can be configured about the broker, with units and defaults.

The sections and their keys are those of the configuration file: ``[broker]`` and
``[database]``.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BrokerSettings(_Section):
    """``[broker]``."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=3000, description="The port to listen on; 0 takes a free one."
    )
    data_dir: Path | None = Field(
        default=None, description="Where the embedded database lives, if no database.url is set."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="How log lines are written: for people or for programs."
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
        default=10, description="Hand-off n of a Work waits this long times 2^n."
    )
    handoff_max_delay_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=600, description="No hand-off waits longer than this."
    )


class DatabaseSettings(_Section):
    """``[database]``."""

    url: str | None = Field(
        default=None, description="PostgreSQL, 15 or newer; the embedded one if not set."
    )
    pool_size: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10, description="How many connections a broker opens at most."
    )
