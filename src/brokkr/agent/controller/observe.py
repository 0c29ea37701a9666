"""
Read a Work and what its current attempt has come to; write nothing.

Reads the informers' caches.  A cache may lag, so what would be dangerous to get wrong
(an attempt that seems to have vanished) is looked up at the API server itself; and so is
what a handler needs beside the attempt's own objects to judge it.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Seen
from brokkr.agent.controller.failures import INVALID_TEMPLATE, UNKNOWN_WORK_TYPE, own_failure
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    LogLookup,
    Lookup,
    ObjectLookup,
    Succeeded,
    Unclear,
    Verdict,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import KubeError, KubeForbidden, KubeKindUnknown
from brokkr.wire.custom_resource import (
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.names import attempt_name
from brokkr.work.template import check_template

log = structlog.get_logger()

LOG_LINES: Final = 100
LOG_BYTES: Final = 256 * 1024
MAX_ROUNDS: Final = 5
"""How often a handler may ask for more before it has to judge without."""


async def observe(
    name: str, *, kube: KubeClient, caches: Caches, handlers: Mapping[str, Handler]
) -> Seen | None:
    """
    Look at one Work; None if there is no such resource.

    Raises:
        KubeError: The API server had to be asked, and did not answer.
    """
    work = caches.works.get(name)
    if work is None:
        return None
    handler = handlers.get(work.work_type)
    if handler is None:
        return Seen(work=work, verdict=own_failure(UNKNOWN_WORK_TYPE, repr(work.work_type)))
    if work.status.phase.is_terminal:
        # There is nothing left to find out about it.
        return Seen(work=work, verdict=Incomplete(create=()))

    caches.check_synced(handler.kinds)
    objects = await _attempt_objects(work, handler, kube=kube, caches=caches)
    executor = next((each for each in objects if each["kind"] == handler.executor), None)
    verdict = await _assess(handler, work, objects, kube=kube)
    if executor is None and (departed := _departed(work, caches)) is not None:
        # It is gone; but if it had ended before, then that is how the attempt ended.
        end = await _assess(handler, work, [*objects, departed], kube=kube)
        verdict = end if isinstance(end, Succeeded | Failed | Cancelled) else verdict
    return Seen(
        work=work,
        verdict=verdict,
        executor_uid=None if executor is None else executor["metadata"]["uid"],
        cancellation=handler.cancel(objects),
    )


def is_of_attempt(manifest: Manifest, work: Work, attempt: int) -> bool:
    """Say whether an object was made for this attempt of this Work."""
    labels = manifest["metadata"].get("labels") or {}
    return (
        labels.get(LABEL_WORK) == work.name
        and labels.get(LABEL_WORK_ID) == str(work.claim.work_id)
        and labels.get(LABEL_ROUND) == str(work.claim.round)
        and labels.get(LABEL_ATTEMPT) == str(attempt)
    )


async def _assess(
    handler: Handler, work: Work, objects: list[Manifest], *, kube: KubeClient
) -> Verdict:
    """Ask the handler, and bring it what it needs to see."""
    evidence: dict[Lookup, Manifest | str | None] = {}
    try:
        if all(each["kind"] != handler.executor for each in objects):
            # Where objects are about to be made: the broker's word is not enough.
            kinds = {work.work_type: handler.template_kinds}
            check_template(work.work_type, work.template, kinds=kinds, namespace=work.namespace)
        for _ in range(MAX_ROUNDS):
            verdict = handler.assess(work, work.attempt, objects, evidence)
            if not isinstance(verdict, Unclear):
                return verdict
            for lookup in verdict.look_at:
                evidence[lookup] = await _look(lookup, work, kube=kube)
    except InvalidWork as error:
        return own_failure(INVALID_TEMPLATE, str(error))
    raise RuntimeError(f"the handler of {work.work_type} asks for more and more")


async def _look(lookup: Lookup, work: Work, *, kube: KubeClient) -> Manifest | str | None:
    """Find what a handler wants to see; None if it is not there, or not for us to see."""
    match lookup:
        case ObjectLookup(resource, name):
            namespace = work.namespace if resource.namespaced else None
            try:
                return await kube.find(resource, namespace, name)
            except (KubeKindUnknown, KubeForbidden) as error:
                log.warning("evidence not seen", of=f"{resource} {name}", error=str(error))
                return None
        case LogLookup(pod, container):
            try:
                return await kube.read_log(
                    work.namespace, pod, container, lines=LOG_LINES, max_bytes=LOG_BYTES
                )
            except KubeError as error:
                # Pods and nodes go; a log that cannot be read must not keep a Work.
                log.info("log not read", of=f"{pod}/{container}", error=str(error))
                return None


async def _attempt_objects(
    work: Work, handler: Handler, *, kube: KubeClient, caches: Caches
) -> list[Manifest]:
    name = attempt_name(work.name, work.attempt)
    labels = {each.resource.kind: each.label for each in handler.related}
    found = []
    for manifest in caches.objects_of(work.name):
        label = labels.get(manifest["kind"])
        # Of objects of a Work that was over the cache keeps no labels, and it may not stay over.
        marks = manifest["metadata"].get("labels") or {}
        is_theirs = label is not None and marks.get(label) == name
        if is_theirs or is_of_attempt(manifest, work, work.attempt):
            found.append(manifest)
    found += caches.pods_of(name)
    is_there = any(each["kind"] == handler.executor for each in found)
    if not is_there and (work.cancel_requested or _recorded_uid(work) is not None):
        resource = next(each for each in handler.kinds if each.kind == handler.executor)
        live = await kube.find(resource, work.namespace, name)
        if live is not None and is_of_attempt(live, work, work.attempt):
            found.append(live)
    return found


def _departed(work: Work, caches: Caches) -> Manifest | None:
    uid = _recorded_uid(work)
    return None if uid is None else caches.departed.get(uid)


def _recorded_uid(work: Work) -> str | None:
    return next((a.uid for a in work.status.attempts if a.number == work.attempt), None)
