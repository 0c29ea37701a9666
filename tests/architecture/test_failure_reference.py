"""
The failure table in print is the table in the code.

``python tests/architecture/test_failure_reference.py`` writes it anew.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from brokkr.agent.controller.failures import TABLE as OWN_TABLE
from brokkr.agent.handlers.build import phrases
from brokkr.agent.handlers.build.failure_table import SOME_STEP, TABLE, UNLISTED, Row
from brokkr.agent.handlers.build.phrases import Phrase
from brokkr.agent.handlers.verdict import Retry
from brokkr.work.fault import Fault

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "failures.md"


class OwnFailure(Protocol):
    """A failure that the agent finds itself, not Shipwright."""

    @property
    def reason(self) -> str: ...
    @property
    def retry(self) -> Retry: ...
    @property
    def fault(self) -> Fault: ...
    @property
    def why(self) -> str: ...


OWN: Sequence[OwnFailure] = OWN_TABLE
"""The agent's own failures, for the second table."""

HEAD = """\
# Failed builds: what is retried

When a build fails, the agent decides which class of failures it is, and the class decides what
happens next:

* **permanent**: the Work fails at once.
* **retried once**, **retried twice**: that many failures of this class are followed by another
  attempt, the next one is not.
* **retryable**: retried until `max_retries` is used up.

Two budgets bound them. A failure of the `cluster` or of a `node` is infrastructure: its retries are
paid by the agent's `infrastructure_retries`, and spend none of the Work's `max_retries`
([more](retries.md)). All others are paid by `max_retries`. What is the cluster's, the node's or the
agent's may be handed over even where it is permanent here.

## Whose failure it is

Each class has one of these words. It stands in the result (`fault`), in metrics, and in what
`brokkr work get` and `brokkr work explain` say.

| fault | where the cause is |
|---|---|
{faults}
A Work names the class, the reason and the fault of each attempt that failed.

## Where the reason comes from

Shipwright often says only *that* something failed. So the agent looks for the most specific reason:

1. the `Succeeded` condition of the BuildRun;
2. for `BuildRegistrationFailed`, the reason of the Build;
3. for `Failed` and its like, what the failed step wrote as its reason; where that does not reach
   the BuildRun, what the step left in its TaskRun, or the TaskRun's own condition;
4. the Pod of the build: whether it was preempted, evicted, deleted or lost with its node
   ([below](#was-the-pod-taken-away));
5. the exit code of the container that failed;
6. the last lines of its log, or a look at what is said to be missing, if a class depends on it.

Where a log decided, the line that did is in the message. A log or an object that cannot be had
counts as saying nothing. Secrets are not looked at: the agent may not read them.

Programs that a RUN starts may print anything. So of the log of a strategy's step only the very last
line decides, which is the builder's own: whether a RUN failed, the Dockerfile is refused, or a
registry could not be used. If that line says nothing of these, the failure is unclear, and retried
once.

## Was the Pod taken away?

A TaskRun says of a lost Pod only that a step ended with 255. So the agent watches the Pods of its
builds (`DisruptionTarget`, reasons, times), and looks before it blames a step:

* A container that was killed for its memory, or a Pod that was evicted for its own limits: the
  user's failure.
* The steps after the failed one have skipped themselves, or the last step ended before the
  disruption began: the user's.
* Else a Pod that was preempted, drained, evicted, deleted, or lost with its node is infrastructure.
* Nobody saw the Pod, and all its containers ended together: infrastructure once (`Interrupted`);
  the next time it counts as a failed step.
* Nobody saw the Pod, and nothing else points to a loss: the verdict is that of a failed step, and
  its message says that the Pod was not seen.

## Classes

Of two classes that hold, the upper one is taken; but what needs a log comes after what does not.
*A step failed* is short for the reasons `Failed`, `StepFailed` and `PipelineRunFailed`.

| class | | fault | reasons and conditions | why |
|---|---|---|---|---|
"""

PHRASES_HEAD = f"""
## What is looked for in messages and logs

Only the end is read: {phrases.MAX_LINES} lines, {phrases.MAX_LINE} characters of each. A line
says it if all expressions are found in it.

| it says | expressions |
|---|---|
"""

WORDS_HEAD = """
## Words people use

Some names for failures are in wide use and hardly ever written. This is what they look like.

| people say | what is written | what is done |
|---|---|---|
"""

WORDS = """
BuildStrategyNotFound
| On the Build `BuildStrategyNotFound` or `ClusterBuildStrategyNotFound`. On the BuildRun mostly
  `BuildRegistrationFailed`, with that reason in its message; the bare names only if the strategy
  vanished after the Build was registered.
| Permanent, unless a look at the cluster finds the strategy: then `CacheRace`.

InvalidImage
| Nothing of that name. A name that cannot be parsed is in the log of `step-image-processing`:
  `failed to parse image name`. An image of the strategy that is not there is
  `TaskRunImagePullFailed`. `TriggerInvalidImage` is about triggers.
| Permanent. An image that could not be pulled because of the network is retried.

InvalidDockerfile
| Nothing of that name. A missing file is `DockerfileNotFound` or `ContextDirNotFound`, and only
  some strategies write that. Wrong content is `Failed` in the strategy's step, with no reason; the
  builder's last line says what it is.
| Permanent: `InputRefused` for a missing file, `DockerfileInvalid` for wrong content. A RUN that
  fails is `RunFailed` and retried once, for it may have used the network.

ImagePushFailed
| Nothing of that name. `Failed` in `step-image-processing` where Shipwright pushes, in the
  strategy's own step where that does. The cause is in the step's log alone.
| **Not always worth a retry**: a push that is refused for bad credentials is permanent
  (`PushRefused`, `RegistryRefused`). One that did not reach the registry is retried; one to a host
  without an address only once.

GitRemoteFailed
| Nothing of that name. `GitError`, `GitAuthInvalidKey`, `GitRemoteRepositoryNotFound` or
  `GitRemoteRepositoryPrivate`; on a Build that is verified `RemoteRepositoryUnreachable`.
| **Not always worth a retry**: a missing repository or revision and wrong credentials are
  permanent. `GitAuthInvalidKey` is written for a wrong key and for a dead network alike; the log
  tells which.

a timeout
| `BuildRunTimeout`.
| Retried: waiting for a node counts too.
"""
"""A paragraph for each row."""


def render(own: Sequence[OwnFailure] = OWN) -> str:
    parts = [HEAD.replace("{faults}", _faults()), *(_class(rows) for rows in _classes())]
    if own:
        parts += [
            "\n## What the agent finds itself\n\n| reason | | fault | why |\n|---|---|---|---|\n"
        ]
        parts += [
            f"| `{each.reason}` | {each.retry.value} | {each.fault} | {each.why} |\n"
            for each in own
        ]
    parts += [WORDS_HEAD, *(f"| {' '.join(row.split())} |\n" for row in WORDS.split("\n\n"))]
    parts += [PHRASES_HEAD, *(_phrase(each) for each in _phrases_in_use())]
    return "".join(parts)


def _faults() -> str:
    """Render the enumeration's own words, which stand in its docstring."""
    told = dict(_FAULT.findall(" ".join((Fault.__doc__ or "").split())))
    return "".join(f"| `{each}` | {told[each.name]} |\n" for each in Fault)


_FAULT = re.compile(r"([A-Z]+): (.*?\.)(?= [A-Z]+: |$)")


def _classes() -> list[list[Row]]:
    by_name: dict[str, list[Row]] = {}
    for row in (*TABLE, UNLISTED):
        by_name.setdefault(row.name, []).append(row)
    return list(by_name.values())


def _class(rows: list[Row]) -> str:
    holds = "<br>".join(_case(row) for row in rows)
    first = rows[0]
    return f"| `{first.name}` | {first.retry.value} | {first.fault} | {holds} | {first.why} |\n"


def _case(row: Row) -> str:
    reasons = [f"`{each}`" for each in row.reasons if each not in SOME_STEP]
    if {*SOME_STEP} & {*row.reasons}:
        reasons.append("a step failed")
    conditions = ", ".join(_conditions(row))
    return ", ".join(reasons or ["any other reason"]) + (f": {conditions}" if conditions else "")


def _conditions(row: Row) -> Iterable[str]:
    if row.container:
        yield f"in `{row.container}`"
    if row.exit_code is not None:
        yield f"with exit code {row.exit_code}"
    if row.saying is not None:
        yield f"the message says {row.saying.words}"
    if row.log is not None:
        yield f"the log says {row.log.words}"
    if row.ending is not None:
        yield f"the last line of the log says {row.ending.words}"
    if row.is_there:
        yield "what is said to be missing is there (not for Secrets)"


def _phrases_in_use() -> list[Phrase]:
    used = [each for row in TABLE for each in (row.saying, row.log, row.ending) if each is not None]
    return [each for each in dict.fromkeys(used) if each is not phrases.ANYTHING]


def _phrase(phrase: Phrase) -> str:
    patterns = " and ".join(f"`{each.pattern}`" for each in phrase.patterns).replace("|", r"\|")
    return f"| {phrase.words} | {patterns} |\n"


def test_the_failure_table_in_print_is_the_table_in_the_code() -> None:
    assert DOCUMENT.read_text() == render(), f"run: python {__file__}"


def test_the_agents_own_failures_get_a_table_of_their_own() -> None:
    @dataclass
    class Example:
        reason: str = "DeadlineExceeded"
        retry: Retry = Retry.ONCE
        fault: Fault = Fault.UNCLEAR
        why: str = "it took too long"

    assert "| `DeadlineExceeded` | retried once | unclear | it took too long |" in render(
        [Example()]
    )


def test_no_two_phrases_have_the_same_words() -> None:
    words = [each.words for each in _phrases_in_use()]

    assert sorted(words) == sorted(set(words))


if __name__ == "__main__":
    DOCUMENT.write_text(render())
