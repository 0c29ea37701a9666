"""
What everybody's Pods cost an agent: ``python benchmarks/foreign_pods.py [PODS]``.

A namespace may hold ten thousand Pods of builds that are not this agent's, and the label
selects them all.  Each is given as a list and five changes would give it, as large as a
real one; printed are the processor time of the agent's part and the memory that stays.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, cast

from brokkr.agent.controller.pods import PodCache
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.documents import read_json

RECORDED = Path(__file__).parents[1] / "tests" / "data" / "buildruns" / "pod-preempted" / "pod.json"
CHANGES = 5


def resident() -> int:
    """Return how many bytes of memory this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(count: int) -> None:
    """Measure and print."""
    news: list[str] = []
    pods = PodCache(
        cast(KubeClient, None),
        "ns",
        "buildrun.shipwright.io/name",
        is_wanted=lambda _: False,
        on_change=news.append,
        on_restart=lambda _: None,
    )
    recorded = json.loads(RECORDED.read_text())
    recorded["metadata"] |= {
        "name": "pod-NUMBER",
        "uid": "uid-NUMBER",
        "resourceVersion": "VERSION",
    }
    recorded["metadata"]["labels"]["buildrun.shipwright.io/name"] = "build-NUMBER"
    template = json.dumps(recorded)

    def text_of(number: int, version: int) -> bytes:
        text = template.replace("NUMBER", str(number))
        return text.replace("VERSION", str(number * (1 + CHANGES) + version)).encode()

    reading = taking = 0.0
    size = len(text_of(0, 0))
    before = resident()
    for version in range(1 + CHANGES):
        for number in range(count):
            text = text_of(number, version)
            began = time.process_time()
            pod: dict[str, Any] = read_json(text)
            read = time.process_time()
            pods.informer._take("MODIFIED" if version else "ADDED", pod)  # noqa: SLF001 - no server
            reading += read - began
            taking += time.process_time() - read
        del pod
    kept = resident() - before
    events = count * (1 + CHANGES)
    print(f"{count} Pods of others, {size / 1024:.0f} KiB each, {events} events")
    print(f"memory that stays: {kept / 1024**2:.1f} MiB ({kept / count:.0f} bytes a Pod)")
    print(f"processor time: {reading / events * 1e6:.0f} us an event to read it as JSON,")
    print(f"                {taking / events * 1e6:.0f} us an event for all else")
    print(f"Works looked at for them: {len(news)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
