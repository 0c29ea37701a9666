"""BuildRuns recorded from a real Shipwright, and what the cluster would show of them."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from brokkr.agent.handlers.verdict import LogLookup, Lookup, Unclear, Verdict
from brokkr.work.model import Manifest

RECORDINGS = Path(__file__).parents[1] / "data" / "buildruns"
CASES = sorted(each.name for each in RECORDINGS.iterdir())

_HEAD = re.compile(r"^===== (\S+) / (\S+)\n", re.MULTILINE)


def recorded(case: str, *, with_execution: bool = True) -> list[Manifest]:
    """Return the Build, the BuildRun and, if wanted, the TaskRuns of a recording."""
    found: list[Manifest] = []
    for kind in ("build", "buildrun", *(["taskruns"] if with_execution else [])):
        file = RECORDINGS / case / f"{kind}.json"
        content = json.loads(file.read_text()) if file.exists() else []
        found += content if isinstance(content, list) else [content]
    return found


def logs_of(case: str) -> dict[Lookup, Manifest | str]:
    """Return what each container said, or nothing if no pod ran."""
    file = RECORDINGS / case / "logs.txt"
    parts = _HEAD.split(file.read_text() if file.exists() else "")
    return {
        LogLookup(pod, container): log
        for pod, container, log in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def settle(
    assess: Callable[[dict[Lookup, Manifest | str | None]], Verdict | Unclear],
    world: Mapping[Lookup, Manifest | str],
    *,
    rounds: int = 5,
) -> Verdict:
    """Ask as the controller does: what is asked for is looked at once, then asked again."""
    evidence: dict[Lookup, Manifest | str | None] = {}
    for _ in range(rounds):
        verdict = assess(evidence)
        if not isinstance(verdict, Unclear):
            return verdict
        assert verdict.look_at, "asks for nothing"
        assert not set(verdict.look_at) & set(evidence), "asks for what it was given"
        evidence |= {each: world.get(each) for each in verdict.look_at}
    raise AssertionError(f"still unclear after {rounds} rounds")
