"""BuildRuns recorded from a real Shipwright, and what the cluster would show of them."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from brokkr.agent.handlers.pod_facts import facts_of_pod
from brokkr.agent.handlers.verdict import LogLookup, Lookup, Unclear, Verdict
from brokkr.work.model import Manifest

RECORDINGS = Path(__file__).parents[1] / "data" / "buildruns"
CASES = sorted(each.name for each in RECORDINGS.iterdir())

_HEAD = re.compile(r"^===== (\S+) / (\S+)\n", re.MULTILINE)


def recorded(case: str, *, with_execution: bool = True, with_pod: bool = True) -> list[Manifest]:
    """Return the Build, the BuildRun and, if wanted, TaskRuns and Pod of a recording."""
    found: list[Manifest] = []
    for kind in ("build", "buildrun", *(["taskruns"] if with_execution else [])):
        file = RECORDINGS / case / f"{kind}.json"
        content = json.loads(file.read_text()) if file.exists() else []
        found += content if isinstance(content, list) else [content]
    pod = RECORDINGS / case / "pod.json"
    if with_execution and with_pod and pod.exists():
        found.append(facts_of_pod(json.loads(pod.read_text())))
    return found


def has_watch(case: str) -> bool:
    """Say whether a watch of the BuildRun was recorded, too."""
    return (RECORDINGS / case / "watch.json").exists()


def watched(case: str) -> list[tuple[str, Manifest]]:
    """Return what a watch of the BuildRun gave: the kind of each event, and the BuildRun then."""
    lines = (RECORDINGS / case / "watch.json").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [(each["type"], each["object"]) for each in events]


def logs_of(case: str) -> dict[Lookup, Manifest | str]:
    """Return what each container said, or nothing if no pod ran."""
    file = RECORDINGS / case / "logs.txt"
    parts = _HEAD.split(_text_of(file) if file.exists() else "")
    return {
        LogLookup(pod, container): log
        for pod, container, log in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    }


def _text_of(file: Path) -> str:
    """Read a log as its stream gave it, carriage returns included."""
    with file.open(newline="") as log:
        return log.read()


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
