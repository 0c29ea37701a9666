"""What intake, heartbeat and reporting write on Work resources; the controller reads it."""

# Note [A round that is claimed twice]
#
# Rounds are counted by the broker, and each claim is a round of its own.  So a resource that
# is there already belongs to an earlier process of this agent, with the same claim; or to a
# broker that has since been restored from a backup, and counts the same rounds again.  What
# that one was told it does not remember.  A result is therefore told to it anew, under the
# claim of now.  What was stopped has no result, and its name is taken: it is given back, so
# that the next round runs it, and the history says why.

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from brokkr.agent.kinds import WORKS
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.kube.errors import (
    KubeAlreadyExists,
    KubeConflict,
    KubeInvalid,
    KubeNotFound,
)
from brokkr.wire.bodies import ClaimBody
from brokkr.wire.custom_resource import (
    ANNOTATION_ACKNOWLEDGED,
    ANNOTATION_CANCEL,
    ANNOTATION_CLAIM_ID,
    render_claimed,
    trace_of,
)
from brokkr.work.errors import InvalidWork
from brokkr.work.model import Claim, Manifest, Phase, Work
from brokkr.work.template import check_size

CLAIM_LOST = "the claim was lost: the broker has given the work to somebody else"
CANCEL_REQUESTED = "cancelled on request"
CUT_OFF = "the lease ran out while the broker could not be reached"

_WITH_RESULT: Final = {Phase.SUCCEEDED.value, Phase.FAILED.value}

LONGEST_CLAIM_TIMEOUT_SECONDS: Final = 7 * 86400
"""The longest that the broker lets anybody ask for."""


async def create_work(
    kube: KubeClient, namespace: str, claim: ClaimBody, *, agent_id: UUID
) -> bool:
    """
    Write the Work resource of a claim, or adopt the one that is there already.

    False if that one was stopped: under this claim nothing can come of it.

    Raises:
        InvalidWork: It is none, the API server refuses it, or the name is taken by something
            else.
        KubeError: It cannot be done now.
    """
    spec = claim.resource.get("spec")
    if not isinstance(spec, dict):
        raise InvalidWork("resource.spec", "the broker sent a claim without a spec")
    _check_claim(claim, spec)
    resource = render_claimed(
        spec,
        Claim(
            work_id=claim.id,
            claim_id=claim.claim_id,
            round=claim.round,
            agent_id=agent_id,
            broker=claim.broker,
        ),
        trace_of(claim.resource),
    )
    try:
        await kube.create(WORKS, namespace, resource)
    except KubeInvalid as error:
        raise InvalidWork("resource", str(error)) from error
    except KubeAlreadyExists:
        return await _adopt(kube, namespace, resource)
    return True


def _check_claim(claim: ClaimBody, spec: Manifest) -> None:
    """Refuse what could be written, and not be read again, or not be what was claimed."""
    if claim.round < 1:
        raise InvalidWork("round", f"{claim.round} is none: they are counted from 1")
    if spec.get("workType") != claim.work_type:
        raise InvalidWork("resource.spec.workType", "is not the type that was claimed")
    timeout = spec.get("claimTimeout")
    if type(timeout) is not int or not 1 <= timeout <= LONGEST_CLAIM_TIMEOUT_SECONDS:
        raise InvalidWork(
            "resource.spec.claimTimeout",
            f"must be a number from 1 to {LONGEST_CLAIM_TIMEOUT_SECONDS}",
        )
    template = spec.get("template")
    if not isinstance(template, Mapping):
        raise InvalidWork("resource.spec.template", "must be an object")
    # What is too large for etcd, the API server says, may be tried again; for ever, then.
    check_size(template)


async def _adopt(kube: KubeClient, namespace: str, resource: Manifest) -> bool:
    """
    Take an existing resource over, if it is the same claim's; carry the claim id on.

    See Note [A round that is claimed twice].
    """
    name = resource["metadata"]["name"]
    existing = await kube.get(WORKS, namespace, name)
    metadata = existing["metadata"]
    if metadata.get("labels") != resource["metadata"]["labels"] or (
        existing.get("spec") != resource["spec"]
    ):
        raise InvalidWork("resource", f"a Work {name} that is not this one's exists already")
    before = metadata.get("annotations") or {}
    annotations = resource["metadata"]["annotations"]
    is_told = ANNOTATION_ACKNOWLEDGED in before
    is_claimed_anew = before.get(ANNOTATION_CLAIM_ID) != annotations[ANNOTATION_CLAIM_ID]
    has_result = (existing.get("status") or {}).get("phase") in _WITH_RESULT
    if (is_told or is_claimed_anew) and ANNOTATION_CANCEL in before and not has_result:
        return False
    if is_told or is_claimed_anew:
        await kube.merge_patch(
            WORKS,
            namespace,
            name,
            {
                "metadata": {
                    "annotations": {**annotations, ANNOTATION_ACKNOWLEDGED: None},
                    "resourceVersion": metadata["resourceVersion"],
                }
            },
        )
    return True


async def delete_untouched(kube: KubeClient, work: Work) -> bool:
    """Delete a Work that nothing was made of yet; say whether it was still so."""
    try:
        await kube.delete(
            WORKS, work.namespace, work.name, uid=work.uid, resource_version=work.resource_version
        )
    except KubeConflict:
        return False
    return True


async def mark_cancelled(kube: KubeClient, work: Work, reason: str) -> None:
    """Ask the controller to stop a Work.  Level-triggered: the mark stays."""
    if not work.cancel_requested and not work.status.phase.is_terminal:
        await _annotate(kube, work, ANNOTATION_CANCEL, reason)


async def mark_acknowledged(kube: KubeClient, work: Work, now: datetime) -> None:
    """Note that the broker has taken the completion; from now on the TTL runs."""
    await _annotate(kube, work, ANNOTATION_ACKNOWLEDGED, now.isoformat(timespec="seconds"))


async def _annotate(kube: KubeClient, work: Work, key: str, value: str) -> None:
    patch = {"metadata": {"annotations": {key: value}, "uid": work.uid}}
    try:
        await kube.merge_patch(WORKS, work.namespace, work.name, patch)
    except KubeNotFound:
        return  # deleted meanwhile; the heartbeat's comparison deals with it
