"""What people are shown of a Work: a line in a list, or all that is known of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from brokkr.cli.follow import render_doing, render_event
from brokkr.cli.output import (
    render_columns,
    render_pairs,
    render_seconds,
    render_size,
    render_time,
)
from brokkr.wire.bodies import WorkBody, WorkPage, WorkState
from brokkr.wire.events import WorkEvent
from brokkr.wire.explain import Counted, Explanation
from brokkr.work.fault import Fault

_SHOWN_VULNERABILITIES: Final = 3


def render_receipt(work: WorkBody) -> str:
    """Say what became of a submission."""
    agents = {None: "", 0: "; no agent matches its target now", 1: "; 1 agent matches its target"}
    many = f"; {work.eligible_agents} agents match its target"
    return f"work {work.id} is {work.status}{agents.get(work.eligible_agents, many)}"


def render_table(page: WorkPage) -> str:
    """Render a line for each Work."""
    head = ("ID", "TYPE", "STATUS", "AGENT", "RETRIES", "SUBMITTED", "MESSAGE")
    return render_columns(
        head,
        [
            (
                str(each.id),
                each.work_type,
                each.status,
                each.agent or "-",
                str(_retries(each)),
                render_time(each.created_at),
                (each.result_message or (each.progress.message if each.progress else "")),
            )
            for each in page.items
        ],
    )


def _retries(work: WorkBody) -> int:
    if work.retries_attempted is not None:
        return work.retries_attempted
    return work.progress.retries if work.progress else 0


def _infrastructure_retries(work: WorkBody) -> int:
    """Return how many attempts the cluster or a node was to blame for, and were repeated."""
    told = (work.result or {}).get("infrastructure_retries")
    if isinstance(told, int):
        return told
    return work.progress.infrastructure_retries if work.progress else 0


def list_facts(work: WorkBody) -> list[tuple[str, str]]:
    """List what a person wants to know of a Work; what is empty is left out later."""
    message = work.result_message or (work.progress.message if work.progress else "")
    agents = "" if work.eligible_agents is None else str(work.eligible_agents)
    is_waiting = work.status is WorkState.PENDING
    return [
        ("id", str(work.id)),
        ("type", work.work_type),
        ("status", work.status),
        ("generator", work.generator or ""),
        ("labels", render_pairs(work.labels)),
        ("priority", str(work.priority or "")),
        ("agent", work.agent or ""),
        ("matching agents", agents),
        ("retries", f"{_retries(work)} of {work.max_retries}"),
        ("infrastructure retries", str(_infrastructure_retries(work) or "")),
        ("hand-offs", f"{work.handoffs} of {work.max_handoffs}" if work.max_handoffs else ""),
        ("lost claims", str(work.lost_claims or "")),
        ("submitted", render_time(work.created_at)),
        ("queued again", render_time(work.requeued_at)),
        ("not before", render_time(work.not_before) if is_waiting else ""),
        ("start deadline", render_time(work.start_deadline) if is_waiting else ""),
        ("claimed", render_time(work.claimed_at)),
        ("lease left", render_seconds(work.lease_seconds)),
        ("progress", _progress(work)),
        ("cancel requested", render_time(work.cancel_requested_at)),
        ("completed", render_time(work.completed_at)),
        ("waited", render_seconds(work.queue_seconds)),
        ("ran", render_seconds(work.run_seconds)),
        ("message", message),
        *list_result_facts(work),
    ]


def _progress(work: WorkBody) -> str:
    """Say what its holder is at; nothing of what nobody holds."""
    now = work.progress
    if now is None or work.status is not WorkState.CLAIMED:
        return ""
    return render_doing(now.attempt, now.phase, now.step)


def render_events(events: Sequence[WorkEvent]) -> str:
    """Render a line for each event: the stable word for it, and what happened in words."""
    head = ("NUMBER", "AT", "KIND", "ACTOR", "WHAT HAPPENED")
    return render_columns(
        head,
        [
            (str(each.number), render_time(each.at), each.kind, each.actor, render_event(each))
            for each in events
        ],
    )


def render_explanation(found: Explanation) -> str:
    """Render the sentence that sums it up, and a line for each agent."""
    if found.waiting is None or not found.waiting.agents:
        return found.summary
    table = render_columns(
        ("AGENT", "RULE", "AHEAD", "WHY"),
        [
            (each.name, each.rule, _count(each.ahead), each.sentence)
            for each in found.waiting.agents
        ],
    )
    more = sum(found.waiting.counts.values()) - len(found.waiting.agents)
    rest = f"\nand {more} more; --agent NAME tells of one of them" if more > 0 else ""
    return f"{found.summary}\n\n{table}{rest}"


def _count(ahead: Counted | None) -> str:
    if ahead is None:
        return "-"
    return str(ahead.count) if ahead.is_exact else f"{ahead.count}+"


def list_result_facts(work: WorkBody) -> list[tuple[str, str]]:
    """Pick from the result, which is the agent's word, what a person looks for first."""
    result = work.result or {}
    size = result.get("size")
    commit = _texts(result.get("git"), "commit_sha", "commit_author", "branch")
    return [
        ("fault", Fault.find_in(result) or ""),
        ("image", str(result.get("image") or "")),
        ("digest", str(result.get("digest") or "")),
        ("size", render_size(size) if isinstance(size, int) else ""),
        ("commit", ", ".join(commit)),
        ("build run", str(result.get("build_run") or "")),
        ("executor", " ".join(_texts(result.get("executor"), "kind", "name"))),
        ("vulnerabilities", _vulnerabilities(result.get("vulnerabilities"))),
        *(("warning", str(each)) for each in _items(result.get("warnings"))),
        *_attempts(result.get("attempts")),
    ]


def _vulnerabilities(given: Any) -> str:
    """Count them, and name the worst, which stand first."""
    found = [_texts(each, "id", "severity") for each in _items(given)]
    if not found:
        return ""
    worst = ", ".join(" ".join(each) for each in found[:_SHOWN_VULNERABILITIES])
    more = ", ..." if len(found) > _SHOWN_VULNERABILITIES else ""
    return f"{len(found)}: {worst}{more}"


def _attempts(given: Any) -> list[tuple[str, str]]:
    """Tell how each attempt went, if there was more than the one that the message is of."""
    attempts = _items(given)
    if len(attempts) < 2:
        return []
    facts = []
    for each in attempts:
        reason, failure_class, message = _texts(each, "reason", "class", "message", blanks=True)
        fault = Fault.find_in(each) if isinstance(each, Mapping) else None
        known = [failure_class if failure_class != reason else "", fault and f"fault: {fault}"]
        of_class = f" ({', '.join(filter(None, known))})" if any(known) else ""
        number = each.get("number", "") if isinstance(each, Mapping) else ""
        facts.append((f"attempt {number}", f"{reason}{of_class}: {message}"))
    return facts


def _items(given: Any) -> list[Any]:
    """Return a list's items; of anything else, which an agent may send, nothing."""
    return given if isinstance(given, list) else []


def _texts(given: Any, *fields: str, blanks: bool = False) -> list[str]:
    """Return some fields of an object as texts; without those that are not there."""
    values = [given.get(each) if isinstance(given, Mapping) else None for each in fields]
    texts = ["" if each is None else str(each) for each in values]
    return texts if blanks else [each for each in texts if each]
