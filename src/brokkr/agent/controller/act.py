"""
Carry out a plan: its actions in order, then one status write, then its notes.

No choices are made here.  What the API server refuses becomes a condition in the status,
so that the next reconcile observes it like everything else.
"""

from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

import structlog

from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.conditions import REFUSED, TEMPLATE_APPLIED, with_condition
from brokkr.agent.controller.decide import Seen
from brokkr.agent.controller.observe import is_of_attempt
from brokkr.agent.controller.plan import (
    CancelAttempt,
    CreateObjects,
    DeleteWork,
    Note,
    Plan,
)
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
)
from brokkr.agent.kinds import EVENTS, WORKS, resource_of
from brokkr.wire.custom_resource import API_VERSION, KIND, LABEL_WORK, render_status
from brokkr.work.model import Manifest, Work, WorkStatus

log = structlog.get_logger()


class _Refused(Exception):
    """The cluster will not have an object of the template."""


async def carry_out(
    plan: Plan,
    seen: Seen,
    *,
    kube: KubeClient,
    caches: Caches,
    handlers: Mapping[str, Handler],
    now: datetime,
) -> None:
    """
    Do what the plan says.

    Raises:
        KubeConflict: The Work has changed since it was observed; observe again.
        KubeError: The API server refused something else, or is away.
    """
    work, status = seen.work, plan.status
    try:
        for action in plan.actions:
            match action:
                case CreateObjects(manifests):
                    status = await _create(
                        manifests, work, status, kube=kube, executor=_executor(handlers, work)
                    )
                case CancelAttempt(cancellation):
                    resource = caches.objects[cancellation.kind].resource
                    await _unless_gone(
                        kube.merge_patch(
                            resource, work.namespace, cancellation.name, cancellation.patch
                        )
                    )
                case DeleteWork():
                    await _delete(work, kube=kube, caches=caches)
                    return
    except _Refused as refusal:
        status = _refused(work.status, str(refusal), now=now)

    if status != work.status:
        await _write_status(work, status, kube=kube)
    for note in plan.notes:
        await _record(note, work, kube=kube, now=now)


def _executor(handlers: Mapping[str, Handler], work: Work) -> str:
    return handlers[work.work_type].executor


async def _create(
    manifests: tuple[Manifest, ...],
    work: Work,
    status: WorkStatus,
    *,
    kube: KubeClient,
    executor: str,
) -> WorkStatus:
    """Create objects; return the status with the executor's uid in it, if it is among them."""
    # The cache may be behind: a finished or deleted Work must not be started again.
    live = await kube.get(WORKS, work.namespace, work.name)
    if live["metadata"]["resourceVersion"] != work.resource_version:
        raise KubeConflict(f"{work.name} has changed since it was observed")

    for manifest in manifests:
        created = await _create_or_adopt(manifest, work, kube=kube)
        if manifest["kind"] == executor:
            status = replace(
                status,
                attempts=tuple(
                    replace(each, uid=created["metadata"]["uid"])
                    if each.number == work.attempt
                    else each
                    for each in status.attempts
                ),
            )
    return status


async def _create_or_adopt(manifest: Manifest, work: Work, *, kube: KubeClient) -> Manifest:
    resource, name = resource_of(manifest), manifest["metadata"]["name"]
    try:
        return await kube.create(resource, work.namespace, manifest)
    except (KubeInvalid, KubeForbidden) as error:
        raise _Refused(f"{manifest['kind']} {name}: {error}") from error
    except KubeAlreadyExists:
        existing = await kube.get(resource, work.namespace, name)
        if is_of_attempt(existing, work, work.attempt) or _belongs_to(existing, work):
            return existing
        raise _Refused(
            f"{manifest['kind']} {name} exists in {work.namespace} and belongs to somebody "
            "else; give the template another name"
        ) from None


def _belongs_to(manifest: Manifest, work: Work) -> bool:
    """Say whether an earlier attempt of this Work made it; ConfigMaps keep their names."""
    owners = manifest["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == work.uid for owner in owners)


def _refused(status: WorkStatus, message: str, *, now: datetime) -> WorkStatus:
    conditions = with_condition(
        status.conditions,
        TEMPLATE_APPLIED,
        status=False,
        reason=REFUSED,
        message=message,
        now=now,
    )
    return replace(status, conditions=conditions)


async def _write_status(work: Work, status: WorkStatus, *, kube: KubeClient) -> None:
    """Write the status, on the condition that nobody has changed the Work meanwhile."""
    await kube.replace_status(
        WORKS,
        work.namespace,
        {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": work.name,
                "namespace": work.namespace,
                "resourceVersion": work.resource_version,
            },
            "status": render_status(status),
        },
    )


async def _delete(work: Work, *, kube: KubeClient, caches: Caches) -> None:
    """Delete the attempts' objects, then the Work; owner references are the backstop."""
    for informer in caches.objects.values():
        for name, manifest in list(informer.cache.items()):
            if (manifest["metadata"].get("labels") or {}).get(LABEL_WORK) == work.name:
                await kube.delete(informer.resource, work.namespace, name)
    await kube.delete(WORKS, work.namespace, work.name, uid=work.uid)


async def _record(note: Note, work: Work, *, kube: KubeClient, now: datetime) -> None:
    """Write a log line and a Kubernetes Event.  It is for people: without it work goes on."""
    (log.warning if note.is_warning else log.info)(
        "work moved on", reason=note.reason, message=note.message
    )
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{work.name}."},
        "type": "Warning" if note.is_warning else "Normal",
        "reason": note.reason,
        "message": note.message,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": "brokkr-agent"},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": work.name,
            "namespace": work.namespace,
            "uid": work.uid,
        },
    }
    try:
        await kube.create(EVENTS, work.namespace, event)
    except KubeError as error:
        log.warning("event not recorded", error=str(error))


async def _unless_gone(request: Awaitable[object]) -> None:
    with suppress(KubeNotFound):
        await request
