"""
Read a Work and what its current attempt has come to; write nothing.

Reads the informers' caches.  A cache may lag, so what would be dangerous to get wrong
(an attempt that seems to have vanished) is looked up at the API server itself.
"""

from collections.abc import Mapping

from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.decide import Seen
from brokkr.agent.handlers.protocol import Handler
from brokkr.agent.handlers.verdict import (
    Cancelled,
    Failed,
    Incomplete,
    Retry,
    Succeeded,
    Verdict,
)
from brokkr.agent.kube.client import KubeClient
from brokkr.wire.custom_resource import (
    LABEL_ATTEMPT,
    LABEL_ROUND,
    LABEL_WORK,
    LABEL_WORK_ID,
    work_from_resource,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Manifest, Work
from brokkr.work.names import attempt_name


async def observe(
    name: str, *, kube: KubeClient, caches: Caches, handlers: Mapping[str, Handler]
) -> Seen | None:
    """
    Look at one Work; None if there is no such resource.

    Raises:
        InvalidWork: There is one that no claim of Brokkr's made.
        KubeError: The API server had to be asked, and did not answer.
    """
    resource = caches.works.cache.get(name)
    if resource is None:
        return None
    work = work_from_resource(resource)
    handler = handlers.get(work.work_type)
    if handler is None:
        return Seen(work=work, verdict=_permanent("UnknownWorkType", work.work_type))
    if work.status.phase.is_terminal:
        # There is nothing left to find out about it.
        return Seen(work=work, verdict=Incomplete(create=()))

    objects = await _attempt_objects(work, handler, kube=kube, caches=caches)
    executor = next((each for each in objects if each["kind"] == handler.executor), None)
    verdict = _assess(handler, work, objects)
    if executor is None and (departed := _departed(work, caches)) is not None:
        # It is gone; but if it had ended before, then that is how the attempt ended.
        end = _assess(handler, work, [*objects, departed])
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


def _assess(handler: Handler, work: Work, objects: list[Manifest]) -> Verdict:
    try:
        return handler.assess(work, work.attempt, objects)
    except InvalidWork as error:
        return _permanent("InvalidTemplate", str(error))


def _permanent(reason: str, message: str) -> Failed:
    return Failed(reason=reason, message=message, retry=Retry.NEVER)


async def _attempt_objects(
    work: Work, handler: Handler, *, kube: KubeClient, caches: Caches
) -> list[Manifest]:
    name = attempt_name(work.name, work.attempt)
    found = []
    for kind, informer in caches.objects.items():
        manifest: Manifest | None = informer.cache.get(name)
        if manifest is None and kind == handler.executor and _recorded_uid(work) is not None:
            manifest = await kube.find(informer.resource, work.namespace, name)
        if manifest is not None and is_of_attempt(manifest, work, work.attempt):
            found.append(manifest)
    return found


def _departed(work: Work, caches: Caches) -> Manifest | None:
    uid = _recorded_uid(work)
    return None if uid is None else caches.departed.get(uid)


def _recorded_uid(work: Work) -> str | None:
    return next((a.uid for a in work.status.attempts if a.number == work.attempt), None)
