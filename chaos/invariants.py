"""
What must hold, as functions of what was seen; each returns what is wrong, in sentences.

They know nothing of how it was seen, so that a test can show them what must not be.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from chaos.stream import SORTS

MAX_LOST_CLAIMS: Final = 3
_ENDS: Final = {"completed", "cancelled", "expired", "quarantined"}
_ASIDE: Final = {"progress", "attempt_failed", "cancel_requested"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of ``work_events``."""

    number: int
    kind: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRow:
    """One line of ``work_claims``; ``ended_as`` is None while it is held."""

    claim_id: str
    round: int
    ended_as: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """
    One Work, as the database has it in one snapshot.

    Attributes:
        places: In how many places it is: the queue, the log.
        status: As the API says it.
        events_counted: The number that the Work's row says its newest event has.
        digest: Of the image that it was completed with.
    """

    work_id: str
    key: str
    places: int
    status: str
    round: int
    claim_id: str | None
    lost_claims: int
    events_counted: int
    events: Sequence[Event]
    claims: Sequence[ClaimRow]
    digest: str | None = None

    @property
    def is_finished(self) -> bool:
        """Say whether it is in the log."""
        return self.status not in ("PENDING", "CLAIMED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A BuildRun that neither has ended nor was told to."""

    name: str
    work_id: str
    round: int


def broken_history(history: History) -> list[str]:
    """Say where a Work's events, claims and state contradict each other."""
    who = f"Work {history.work_id}"
    wrong = []
    if history.places != 1:
        wrong.append(f"{who} is in {history.places} places")
    if [each.number for each in history.events] != list(range(1, history.events_counted + 1)):
        numbers = [each.number for each in history.events]
        wrong.append(f"{who} counts {history.events_counted} events and has {numbers}")
    story = [each.kind for each in history.events]
    ends = sum(kind in _ENDS for kind in story)
    if ends != history.is_finished:
        wrong.append(f"{who} is {history.status} and has ended {ends} times: {story}")
    told = _Told()
    for event in history.events:
        if not told.go_on(event):
            wrong.append(f"{who}: {event.kind} cannot come after {story[: event.number - 1]}")
            break
    else:
        if told.status != history.status:
            wrong.append(f"{who} is {history.status}, and its events make it {told.status}")
        if told.rounds != history.round:
            wrong.append(f"{who} is in round {history.round}; its events count {told.rounds}")
    return wrong + _broken_claims(history)


class _Told:
    """The state that a Work's events lead to."""

    def __init__(self) -> None:
        self.status = ""
        self.rounds = 0
        self._claim: Any = None
        self._lapsed: Any = None

    def go_on(self, event: Event) -> bool:
        """Take in the next event; say whether it was possible."""
        claim = event.detail.get("claim_id")
        if event.kind in _ENDS:
            return self._end(event, claim)
        if event.kind in _ASIDE:
            return self.status in ("PENDING", "CLAIMED")
        before, after = {
            "submitted": ("", "PENDING"),
            "claimed": ("PENDING", "CLAIMED"),
            "lease_lost": ("CLAIMED", "PENDING"),
            "released": ("CLAIMED", "PENDING"),
            "unworkable": ("CLAIMED", "PENDING"),
            "handed_off": ("CLAIMED", "PENDING"),
            "lease_revived": ("PENDING", "CLAIMED"),
        }[event.kind]
        possible = self.status == before
        match event.kind:
            case "claimed":
                self.rounds += 1
                self._claim = claim
            case "lease_lost" | "released" | "unworkable" | "handed_off":
                possible = possible and claim == self._claim
                is_revivable = event.kind in ("lease_lost", "unworkable")
                self._lapsed = claim if is_revivable else None
            case "lease_revived":
                possible = possible and claim == self._lapsed
            case _:
                pass
        self.status = after
        return possible

    def _end(self, event: Event, claim: Any) -> bool:
        outcome = event.detail.get("outcome", event.kind)
        possible = self.status in ("PENDING", "CLAIMED")
        if event.kind == "completed":
            held = self._claim if self.status == "CLAIMED" else self._lapsed
            possible = possible and claim == held
        elif event.kind == "expired":
            possible = possible and self.rounds == 0
        self.status = str(outcome).upper()
        return possible


def _broken_claims(history: History) -> list[str]:
    who = f"Work {history.work_id}"
    rounds = sorted(each.round for each in history.claims)
    wrong = []
    if rounds != list(range(1, history.round + 1)):
        wrong.append(f"{who} is in round {history.round} and has claims of rounds {rounds}")
    held = [each.claim_id for each in history.claims if each.ended_as is None]
    if held != ([history.claim_id] if history.status == "CLAIMED" else []):
        wrong.append(f"{who} is {history.status}, and these claims are not ended: {held}")
    completed = sum(each.ended_as == "completed" for each in history.claims)
    if completed > 1:
        wrong.append(f"{who} has {completed} claims that completed it")
    return wrong


def wrong_end(history: History, sort: str) -> list[str]:
    """Say why a Work should not have ended as it did."""
    outcome = history.status.lower()
    if not history.is_finished:
        return [f"Work {history.work_id} ({sort}) has not ended: it is {history.status}"]
    if outcome == "quarantined":
        lost = Counter(each.kind for each in history.events)["lease_lost"]
        enough = history.lost_claims >= MAX_LOST_CLAIMS and lost >= MAX_LOST_CLAIMS - 1
        return [] if enough else [f"Work {history.work_id} is quarantined after {lost} lost leases"]
    if outcome in SORTS[sort].outcomes:
        return []
    said = history.events[-1].detail.get("message")
    return [f"Work {history.work_id} ({sort}) has ended as {outcome}: {said}"]


def retries_for_losses(history: History) -> list[str]:
    """
    Say which Works have spent retries of the user's.

    Of all that is submitted nothing fails in a way that those pay for: what fails and is
    repeated was evicted, or lost with its pod, its runner or its cluster.
    """
    spent = [
        each.detail.get("retries")
        for each in history.events
        if each.kind in ("completed", "handed_off")
    ]
    return [
        f"Work {history.work_id} has spent {n} retries, and only the infrastructure failed"
        for n in spent
        if n
    ]


def twice_accepted(keys: Iterable[str]) -> list[str]:
    """Say which idempotency keys stand for several Works; one for each Work is given."""
    return [f"key {key} has {n} Works" for key, n in Counter(keys).items() if n > 1]


def lost_submissions(accepted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Say which Works, by idempotency key, were accepted and are not there."""
    return [
        f"Work {work_id} was accepted under {key}, and the database has {found.get(key)}"
        for key, work_id in accepted.items()
        if found.get(key) != work_id
    ]


def forbidden_overlaps(
    executions: Iterable[Execution], histories: Mapping[str, History]
) -> list[str]:
    """
    Say which executions of one Work run at once, and may not even for a moment.

    Two of one claim never may.  Two of different claims may, if the older one's lease was lost,
    or its agent could not work on it.

    Args:
        executions: Of all clusters, seen at one moment.
        histories: Read after that.
    """
    by_work = defaultdict(list)
    for each in executions:
        by_work[each.work_id].append(each)
    wrong = []
    for work_id, live in by_work.items():
        rounds = Counter(each.round for each in live)
        names = sorted(each.name for each in live)
        if any(n > 1 for n in rounds.values()):
            wrong.append(f"Work {work_id} is executed twice for one claim: {names}")
        history = histories.get(work_id)
        ends = {each.round: each.ended_as for each in history.claims} if history else {}
        events = history.events if history else ()
        lapsed = {each.detail.get("round") for each in events if each.kind == "unworkable"}
        wrong += [
            f"Work {work_id} is executed twice, and round {n} has ended as {ends[n]}: {names}"
            for n in rounds
            if n < max(rounds) and ends.get(n) != "lease_lost" and n not in lapsed
        ]
    return wrong


def unfenced(executions: Iterable[Execution], histories: Mapping[str, History]) -> list[str]:
    """
    Say which executions go on for a claim that is over.

    This holds once every agent can hear of it, and has had the time to act on it.
    """
    wrong = []
    for each in executions:
        history = histories.get(each.work_id)
        if history is None or history.is_finished or each.round < history.round:
            state = history.status if history else "unknown"
            wrong.append(f"{each.name} runs, and its Work is {state}")
    return wrong


def lost_completions(
    reported: Mapping[str, tuple[str, str]], histories: Mapping[str, History]
) -> list[str]:
    """
    Say which results were reached in a cluster under the claim that counts, and are not logged.

    Args:
        reported: By claim id, the Work and the terminal phase that its resource had.
    """
    wrong = []
    for claim_id, (work_id, phase) in reported.items():
        history = histories.get(work_id)
        if history is None:
            wrong.append(f"Work {work_id} was {phase} in its cluster, and is unknown")
            continue
        claims = {each.claim_id: each.ended_as for each in history.claims}
        if claims.get(claim_id) == "completed" and history.status != phase.upper():
            wrong.append(f"Work {work_id} was {phase} under {claim_id}, and is {history.status}")
        if claim_id not in claims:
            wrong.append(f"Work {work_id} was executed under {claim_id}, which is no claim")
    return wrong


def given_up_too_early(
    given_up: Mapping[str, tuple[str, str]], histories: Mapping[str, History]
) -> list[str]:
    """
    Say which claims an agent has taken for over that the broker has not ended.

    Args:
        given_up: By claim id, the Work, and what was made of its resource.
        histories: Read after that.
    """
    wrong = []
    for claim_id, (work_id, what) in given_up.items():
        history = histories.get(work_id)
        held = (
            {each.claim_id for each in history.claims if each.ended_as is None} if history else ()
        )
        if claim_id in held:
            wrong.append(f"Work {work_id} was {what} in its cluster, and {claim_id} is held")
    return wrong


def missing_images(
    built: Iterable[History], has_image: Mapping[tuple[str, str], bool]
) -> list[str]:
    """
    Say which Works were completed with an image that is not in the registry.

    Args:
        built: Works whose builds are real.
        has_image: By idempotency key and digest, what the registry says of it.
    """
    return [
        f"Work {each.work_id} has succeeded, and the registry has no {each.digest or 'image'} of it"
        for each in built
        if each.status == "SUCCEEDED" and not has_image.get((each.key, each.digest or ""))
    ]


def not_superseded(alive: Mapping[str, int]) -> list[str]:
    """Say which parts, by name, have several processes: a successor did not end the others."""
    return [f"there are {n} processes of {name}" for name, n in alive.items() if n > 1]


def left_running(command_lines: Iterable[str], folder: str) -> list[str]:
    """Say which processes work in a folder that nothing should work in any more."""
    return [f"still runs: {each}" for each in command_lines if folder in each]


def complaints(log: Iterable[str]) -> list[str]:
    """Return what a program's log should not say: tracebacks, and errors of its own making."""
    lines = list(log)
    found = [
        line for line in lines if '"exception"' in line or line.startswith("Traceback (most recent")
    ]
    return [each.strip()[-2000:] for each in found]
