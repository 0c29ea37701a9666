"""
Local mode's API server refuses what one with Shipwright's own definitions refuses.

The agent is the other half: it finds what an old API server drops without a word.
"""

import asyncio
import json
import re
from itertools import count
from typing import Any

import pytest

from brokkr.agent.controller.lost_fields import find_lost_field
from brokkr.agent.kinds import BUILD_RUNS, BUILDS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeInvalid
from support.definitions import VERDICTS

pytestmark = pytest.mark.kube

TABLE: dict[str, dict[str, list[Any]]] = json.loads(VERDICTS.read_text())
AT_ONCE = 20
# The one difference: the key of such a list may not be empty there.
EMPTY_KEY = re.compile(r'"(os|arch)": ""|"claims": \[\{"name": ""')


@pytest.mark.parametrize("resource", [BUILDS, BUILD_RUNS], ids=lambda each: each.kind)
async def test_what_shipwright_s_definitions_take_is_taken_and_no_more(
    resource: Resource, kube: KubeClient, namespace: str
) -> None:
    verdicts, numbers = TABLE[resource.kind], count(1)
    slots = asyncio.Semaphore(AT_ONCE)

    async def is_taken(spec: Any) -> bool:
        manifest = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": f"it-{next(numbers)}"},
            "spec": spec,
        }
        async with slots:
            try:
                created = await kube.create(resource, namespace, manifest)
            except KubeInvalid:
                return False
            return find_lost_field(manifest, created) is None

    async def taken_of(specs: list[Any]) -> list[Any]:
        taken = await asyncio.gather(*map(is_taken, specs))
        return [each for each, was in zip(specs, taken, strict=True) if was]

    taken = await taken_of(verdicts["accepted"])
    not_taken = [each for each in verdicts["accepted"] if each not in taken]
    assert [each for each in not_taken if not EMPTY_KEY.search(json.dumps(each))] == []
    assert await taken_of(verdicts["refused"]) == []
