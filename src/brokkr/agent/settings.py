"""
What can be configured about an agent, with units and defaults.

The sections and their keys are those of the configuration file: ``[agent]``,
``[agent.work_queue]``, ``[agent.work_crd]``, ``[agent.work_crd.build]`` and
``[agent.policy]``.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from brokkr.work.durations import parse_duration


def _read_duration(value: object) -> object:
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[timedelta, BeforeValidator(_read_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WorkQueueSettings(_Section):
    """``[agent.work_queue]``: what is taken from the broker, and how often it is asked."""

    enabled: bool = Field(
        default=True, description="Claim new work; if false, only what is held goes on."
    )
    poll_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30,
        description="No longer than this between two tries, when the broker or the cluster "
        "cannot be reached.",
    )
    max_concurrent: Annotated[int, Field(ge=1, le=100)] = Field(
        default=4, description="How many Works are executed at once."
    )
    max_concurrent_by_type: dict[str, Annotated[int, Field(ge=0, le=100)]] = Field(
        default={}, description="The same for single types of work, as in `{build = 2}`."
    )
    when_cut_off: Literal["continue", "stop"] = Field(
        default="continue",
        description="What becomes of Work whose lease ran out while the broker was away: it "
        "goes on until the broker says that it is lost, or it is stopped.",
    )


class BuildSettings(_Section):
    """``[agent.work_crd.build]``: what is filled in where a build leaves it open."""

    service_account: str = Field(
        default="builder-sa", description="The ServiceAccount of BuildRuns."
    )
    default_timeout: Duration = Field(
        default=timedelta(minutes=15), description="How long a build may take."
    )
    build_retention_succeeded: Duration = Field(
        default=timedelta(hours=1), description="How long a succeeded Work is kept in the cluster."
    )
    deadline_grace: Duration = Field(
        default=timedelta(minutes=1),
        description="How much longer than its timeout a build may take before the agent stops it.",
    )
    start_within: Duration = Field(
        default=timedelta(minutes=10),
        description="How long a build may wait until Shipwright and Tekton begin it, as while a "
        "quota has no room, before the agent gives the attempt up.",
    )
    build_retention_failed: Duration = Field(
        default=timedelta(hours=24), description="How long any other Work is kept in the cluster."
    )


class WorkCrdSettings(_Section):
    """``[agent.work_crd]``: how claimed work is run in the cluster."""

    namespace: str = Field(
        default="brokkr-agent", description="Where Work resources and builds are made."
    )
    reconcile_interval_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=10, description="How often each Work is looked at, news or not."
    )
    retry_base_delay_seconds: Annotated[float, Field(gt=0, le=86400)] = Field(
        default=60, description="Retry n waits this long times 2^n."
    )
    retry_max_delay_seconds: Annotated[float, Field(gt=0, le=86400)] = Field(
        default=3600, description="No retry waits longer than this."
    )
    infrastructure_retries: Annotated[int, Field(ge=0, le=20)] = Field(
        default=3,
        description="Number of attempts of a Work that are repeated after a failure of the "
        "cluster or a node; they do not count against its `max_retries`.",
    )
    unable_grace: Duration = Field(
        default=timedelta(minutes=10),
        description="How long the agent keeps Work that has begun while it cannot work in its "
        "cluster; after that, other agents may claim it.",
    )
    orphan_grace: Duration = Field(
        default=timedelta(minutes=10),
        description="What is older and belongs to no Work is deleted.",
    )
    unreported_retention: Duration = Field(
        default=timedelta(days=30),
        description="How long Work is kept in the cluster whose broker is gone for good.",
    )
    build: BuildSettings = BuildSettings()


class HealthSettings(_Section):
    """``[agent.health]``: where the agent answers ``/healthz``, ``/readyz`` and ``/metrics``."""

    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(
        default=0, description="The port to listen on; 0 takes a free one, which is in the log."
    )


def _read_list(value: object) -> object:
    """Read what the environment can carry: a list as JSON, or with commas."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [each.strip() for each in value.split(",") if each.strip()]
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("begins like a JSON list and is none") from None


def _check_pattern(pattern: str) -> str:
    if not (pattern and pattern.isascii() and pattern.isprintable() and " " not in pattern):
        raise ValueError("a pattern is made of visible ASCII characters, at least one")
    if "://" in pattern or "@" in pattern:
        raise ValueError("a pattern has no scheme and no user: registry.example.com/team-*")
    return pattern


Patterns = Annotated[
    tuple[Annotated[str, Field(max_length=300), AfterValidator(_check_pattern)], ...],
    BeforeValidator(_read_list),
]


class PolicySettings(_Section):
    """``[agent.policy]``: what builds may name here; a list that is not set allows all.

    Patterns know ``*`` and ``?``.  By environment: with commas, or as JSON.
    """

    registries: Patterns | None = Field(
        default=None,
        description="Where images may come from and go to: `registry.example.com` or "
        "`registry.example.com/team-*`. Lists of patterns, here and below; not set: all, "
        "`[]`: none. By environment with commas or as JSON.",
    )
    git_hosts: Patterns | None = Field(
        default=None,
        description="Hosts of repositories: `git.example.com`, or `git.example.com:8443` if the "
        "port is not the usual one.",
    )
    strategies: Patterns | None = Field(
        default=None, description="Build strategies: `buildah` or `ClusterBuildStrategy/buildah`."
    )
    service_accounts: Patterns | None = Field(
        default=None, description="ServiceAccounts that a BuildRun may name."
    )
    secrets: Patterns | None = Field(
        default=None, description="Secrets that a build may name, whatever for."
    )


class AgentSettings(_Section):
    """``[agent]``: who the agent is and where its broker and its cluster are."""

    broker_url: str = Field(
        default="http://127.0.0.1:3000", description="Where the broker is, without /api/v1."
    )
    key: SecretStr | None = Field(
        default=None, description="The agent's key, as `brokkr agent create` printed it."
    )
    kubeconfig: Path | None = Field(
        default=None,
        description="Which cluster; default: KUBECONFIG, the pod's own cluster, ~/.kube/config.",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="For people, or JSON; `auto`: for people on a terminal."
    )
    log_level: Literal["debug", "info", "warning"] = Field(
        default="info", description="What is less important is not logged."
    )
    work_queue: WorkQueueSettings = WorkQueueSettings()
    work_crd: WorkCrdSettings = WorkCrdSettings()
    health: HealthSettings = HealthSettings()
    policy: PolicySettings = PolicySettings()
