"""
The waits in print are those that the code computes.

``python tests/docs/test_retry_reference.py`` writes the page anew.
"""

from datetime import timedelta
from pathlib import Path

from brokkr.agent.settings import WorkCrdSettings
from brokkr.broker.db.work_queue import HandOffPolicy
from brokkr.broker.settings import BrokerSettings
from brokkr.wire.bodies import SubmitWork
from brokkr.work.backoff import Backoff

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "retries.md"
SHOWN = 7

HEAD = """\
# Retries, hand-overs and lost claims

Four things may go wrong with a Work, and each has a budget of its own.

| what | budget | who counts |
|---|---|---|
| an attempt fails, and that may pass | `max_retries`, {retries} unless given | the agent |
| the cluster or a node loses an attempt | `infrastructure_retries`, {infra} | the agent |
| the agent gives up, and another may try | `max_handoffs`, {handoffs} unless given | the broker |
| the agent falls silent for longer than the lease | `broker.max_lost_claims`, {lost} | the broker |

- Which failures may pass is [a table](failures.md). Some are retried once or twice only, whatever
  the budget.
- `max_retries` counts failures that are forgiven: with 2 there are up to 3 attempts.
- `agent.work_crd.infrastructure_retries` is for what the infrastructure lost: the pod was evicted,
  preempted, drained or deleted, or its node was lost. Such an attempt is repeated and spends none
  of `max_retries`, not even where that is 0. Neither budget pays for the other.
  [Whose failure it was](failures.md#whose-failure-it-is) decides which of them pays.
- Each agent that takes over has the whole budget of retries again. Infrastructure retries are
  counted for the Work: the next agent is told how many are spent. `work requeue` starts both anew.
- A failure of the cluster, a node or the agent may be handed over, also where it is permanent here.
- A claim that was lost spends no retry: the attempt goes on, or begins anew at another agent.
- The last lost claim puts the Work into quarantine; the last failure ends it as FAILED.
- A wait is kept as a time, in the Work resource or the queue, so it outlives restarts.
- A cancelled Work is never retried or handed over.

## The waits, with default settings

Each wait is twice as long as the one before, up to a limit. The settings are
`agent.work_crd.retry_base_delay_seconds` (half of the first wait) and `retry_max_delay_seconds`,
`broker.handoff_base_delay_seconds` (the first wait) and `handoff_max_delay_seconds`.

Infrastructure retries wait as long as retries do, and are counted apart.

| number | retry | hand-over |
|---|---|---|
"""


def render() -> str:
    agent, broker, work = WorkCrdSettings(), BrokerSettings(), SubmitWork.model_fields
    retry = Backoff(
        base=timedelta(seconds=agent.retry_base_delay_seconds),
        cap=timedelta(seconds=agent.retry_max_delay_seconds),
    )
    handoff = HandOffPolicy(
        base=timedelta(seconds=broker.handoff_base_delay_seconds),
        cap=timedelta(seconds=broker.handoff_max_delay_seconds),
    )
    rows = "".join(
        f"| {n} | {in_words(retry.delay(n))} | {in_words(handoff.delay(n - 1))} |\n"
        for n in range(1, SHOWN + 1)
    )
    head = HEAD.format(
        retries=work["max_retries"].default,
        handoffs=work["max_handoffs"].default,
        lost=broker.max_lost_claims,
        infra=agent.infrastructure_retries,
    )
    return head + rows


def in_words(delay: timedelta) -> str:
    minutes, seconds = divmod(int(delay.total_seconds()), 60)
    parts = [(minutes, "min"), (seconds, "s")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def test_the_waits_in_print_are_those_of_the_code() -> None:
    assert REFERENCE.read_text() == render(), f"run: python {__file__}"


if __name__ == "__main__":
    REFERENCE.write_text(render())
