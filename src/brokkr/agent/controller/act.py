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
from brokkr.agent.controller.lost_fields import find_lost_field
from brokkr.agent.controller.observe import is_of_attempt
from brokkr.agent.controller.plan import (
    CancelAttempt,
    CreateObjects,
    DeleteAttempt,
    DeleteWork,
    Note,
    Plan,
)
from brokkr.agent.controller.record import cut
from brokkr.agent.handlers.protocol import Cancellation, Handler
from brokkr.agent.kinds import EVENTS, WORKS, Resource
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeError,
    KubeForbidden,
    KubeInvalid,
    KubeNotFound,
    KubeNotPermitted,
    KubeQuotaExceeded,
    KubeTerminating,
    KubeUnauthorized,
)
from brokkr.wire.custom_resource import API_VERSION, KIND, render_status
from brokkr.work.model import Manifest, Work, WorkStatus
from brokkr.work.names import attempt_name

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
) -> bool:
    """
    Do what the plan says.

    Returns:
        Whether the Work resource was written, so that it is another one now than was seen.

    Raises:
        KubeConflict: The Work has changed since it was observed; observe again.
        KubeError: The API server refused something else, or is away.
    """
    work, status = seen.work, plan.status
    try:
        for action in plan.actions:
            match action:
                case CreateObjects(manifests):
                    handler = handlers[work.work_type]
                    status = await _create(manifests, work, status, kube=kube, handler=handler)
                case CancelAttempt(cancellation):
                    resource = _resource(handlers[work.work_type], cancellation.kind)
                    await _cancel(cancellation, resource, work, kube=kube)
                case DeleteAttempt():
                    handler = handlers[work.work_type]
                    name = attempt_name(work.name, work.attempt)
                    await kube.delete(_resource(handler, handler.executor), work.namespace, name)
                case DeleteWork():
                    await _delete(work, kube=kube, caches=caches, handlers=handlers)
                    return True
    except _Refused as refusal:
        status = _refused(work.status, str(refusal), now=now)

    is_new = status != work.status
    if is_new:
        await _write_status(work, status, kube=kube)
    for note in plan.notes:
        await _record(note, work, kube=kube, now=now)
    return is_new


def _resource(handler: Handler, kind: str) -> Resource:
    return next(each for each in handler.kinds if each.kind == kind)


async def _cancel(
    cancellation: Cancellation, resource: Resource, work: Work, *, kube: KubeClient
) -> None:
    """Ask an object to stop, on the condition that it still is as it was seen: running."""
    name, version = cancellation.name, cancellation.resource_version
    if cancellation.patch is None:
        await kube.delete(resource, work.namespace, name, resource_version=version)
        return
    given = cancellation.patch.get("metadata") or {}
    patch = {**cancellation.patch, "metadata": {**given, "resourceVersion": version}}
    await _unless_gone(kube.merge_patch(resource, work.namespace, name, patch))


async def _create(
    manifests: tuple[Manifest, ...],
    work: Work,
    status: WorkStatus,
    *,
    kube: KubeClient,
    handler: Handler,
) -> WorkStatus:
    """Create objects; return the status with the executor's uid in it, if it is among them."""
    # The cache may be behind: a finished or deleted Work must not be started again.  And a
    # server that has just started refuses this, too: what it refuses below is for good.
    live = await kube.get(WORKS, work.namespace, work.name)
    if live["metadata"]["resourceVersion"] != work.resource_version:
        raise KubeConflict(f"{work.name} has changed since it was observed")

    for manifest in manifests:
        resource = _check_made(manifest, work, handler)
        created = await _create_or_adopt(manifest, resource, work, kube=kube)
        if manifest["kind"] == handler.executor:
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


def _check_made(manifest: Manifest, work: Work, handler: Handler) -> Resource:
    """
    Return what a manifest is one of; refuse what no handler may make, whatever it is.

    Handlers may be anybody's, and what they render begins with what the broker sent.
    """
    metadata = manifest["metadata"]
    for each in handler.kinds:
        if (each.api_version, each.kind) == (manifest["apiVersion"], manifest["kind"]):
            owners = [owner.get("uid") for owner in metadata.get("ownerReferences") or ()]
            if (
                metadata.get("namespace") == work.namespace
                and owners == [work.uid]
                and not metadata.get("finalizers")
                and is_of_attempt(manifest, work, work.attempt)
            ):
                return each
    raise _Refused(
        f"{manifest['kind']} {metadata.get('name')}: the handler of {work.work_type} may not "
        "make this"
    )


async def _create_or_adopt(
    manifest: Manifest, resource: Resource, work: Work, *, kube: KubeClient
) -> Manifest:
    name = manifest["metadata"]["name"]
    try:
        created = await kube.create(resource, work.namespace, manifest)
    except (KubeUnauthorized, KubeNotPermitted, KubeQuotaExceeded, KubeTerminating):
        raise  # the agent's trouble, or the namespace's: no other template would do better
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
    lost = find_lost_field(manifest, created)
    if lost is not None:
        # Better no build than one without what was asked for.
        await kube.delete(resource, work.namespace, name, uid=created["metadata"]["uid"])
        raise _Refused(f"{manifest['kind']} {name}: this cluster's {resource} knows no {lost}")
    return created


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
        message=cut(message),
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


async def _delete(
    work: Work, *, kube: KubeClient, caches: Caches, handlers: Mapping[str, Handler]
) -> None:
    """Delete the attempts' objects, then the Work; owner references are the backstop."""
    made = {each.kind: each for handler in handlers.values() for each in handler.kinds}
    for manifest in caches.objects_of(work.name):
        resource = made.get(manifest["kind"])
        if resource is not None:
            metadata = manifest["metadata"]
            await kube.delete(resource, work.namespace, metadata["name"], uid=metadata["uid"])
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
        "message": cut(note.message),
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
