"""An agent of the version before takes over in mid-retry, and finds the attempt that runs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from brokkr.agent.controller.decide import Policy, Seen, decide
from brokkr.agent.handlers.verdict import Failed, Incomplete, Retry
from brokkr.wire.custom_resource import (
    render_claimed,
    render_spec,
    render_status,
    status_from_resource,
)
from brokkr.work.backoff import Backoff
from brokkr.work.fault import Fault
from brokkr.work.model import Phase, Work
from support.earlier import sources_of_earlier
from support.factories import NOON, a_build_template, a_work, with_status

POLICY = Policy(
    backoff=Backoff(), keep_succeeded=timedelta(hours=1), keep_failed=timedelta(hours=24)
)
LOST = Failed(
    reason="NodeLost",
    message="lost",
    retry=Retry.ALWAYS,
    failure_class="NodeLost",
    fault=Fault.NODE,
)
# What the earlier agent makes of a resource: which attempt is the current one, what it does
# if that has nothing yet, and what it writes if that succeeds.
PROGRAM = """
import json, sys
from datetime import datetime, timedelta
from brokkr.agent.controller.decide import Policy, Seen, decide
from brokkr.agent.handlers.verdict import Incomplete, Succeeded
from brokkr.wire.custom_resource import render_status, work_from_resource
from brokkr.work.backoff import Backoff

policy = Policy(backoff=Backoff(), keep_succeeded=timedelta(1), keep_failed=timedelta(1))
work = work_from_resource(json.load(sys.stdin))
now = datetime.fromisoformat("2026-03-02T00:00:00+00:00")
uid = next((a.uid for a in work.status.attempts if a.number == work.attempt), None)
starts = decide(
    Seen(work=work, verdict=Incomplete(create=({"kind": "Build"},)), executor_uid=uid),
    now=now, policy=policy,
)
ends = decide(
    Seen(work=work, verdict=Succeeded(reason="BuildCompleted", message="built"), executor_uid=uid),
    now=now, policy=policy,
)
print(json.dumps({
    "attempt": work.attempt,
    "starts": [type(each).__name__ for each in starts.actions],
    "ends": render_status(ends.status),
}))
"""


def rolled_back(earlier: Path, work: Work) -> dict[str, Any]:
    resource = render_claimed(
        render_spec(
            work_type="build",
            max_retries=work.max_retries,
            claim_timeout=work.claim_timeout,
            template=a_build_template(),
        ),
        work.claim,
    )
    resource["metadata"] |= {
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
        "creationTimestamp": "2026-03-01T12:00:00Z",
    }
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps({**resource, "status": render_status(work.status)}),
        env={**os.environ, "PYTHONPATH": str(earlier)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def lost_once(*, max_retries: int) -> Work:
    """A Work whose first attempt was lost to the infrastructure."""
    work = a_work(max_retries=max_retries)
    status = decide(Seen(work=work, verdict=LOST), now=NOON, policy=POLICY).status
    return with_status(work, status)


def and_running_again(work: Work) -> Work:
    later = NOON + timedelta(hours=1)
    seen = Seen(work=work, verdict=Incomplete(create=({"kind": "Build"},)))
    status = decide(seen, now=later, policy=POLICY).status
    attempts = tuple(replace(each, uid=f"uid-{each.number}") for each in status.attempts)
    return with_status(work, replace(status, attempts=attempts))


@pytest.mark.parametrize("max_retries", [0, 3])
def test_an_agent_that_is_rolled_back_goes_on_with_the_attempt_that_is_due_or_runs(
    tmp_path: Path, max_retries: int
) -> None:
    earlier = sources_of_earlier(tmp_path)
    waiting = lost_once(max_retries=max_retries)
    running = and_running_again(waiting)
    assert waiting.attempt == running.attempt == 2

    # Without a uid nothing was made yet: it is made now, under the same name.
    before, after = rolled_back(earlier, waiting), rolled_back(earlier, running)

    assert (before["attempt"], before["starts"]) == (2, ["CreateObjects"])
    assert after["attempt"] == 2
    ended = status_from_resource(after["ends"])
    assert ended.phase is Phase.SUCCEEDED
    assert [each.number for each in ended.attempts] == [1, 2]


def test_what_it_writes_is_read_by_this_version_again(tmp_path: Path) -> None:
    work = and_running_again(lost_once(max_retries=3))

    ended = status_from_resource(rolled_back(sources_of_earlier(tmp_path), work)["ends"])

    # It counted what was lost to the infrastructure as the user's: so much is its due.
    assert ended.retries == 1
    assert ended.infrastructure_retries == 0
