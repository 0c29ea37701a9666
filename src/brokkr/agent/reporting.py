"""
Tell the broker what has become of each Work, until it has heard.

The Work resource is the outbox: what is terminal and not acknowledged is sent again, by
this process or the next one.  A broker that is down costs latency, never a result.
"""

from collections.abc import Callable, Container
from datetime import datetime, timedelta
from typing import Final

import structlog
from pydantic import ValidationError

from brokkr.agent.claims import HeldClaims
from brokkr.agent.controller.caches import Caches
from brokkr.agent.controller.workqueue import Workqueue, work_off
from brokkr.agent.kube.client import KubeClient
from brokkr.agent.log_fields import about
from brokkr.agent.metrics import Metrics
from brokkr.agent.resources import CLAIM_LOST, CUT_OFF, mark_acknowledged, mark_cancelled
from brokkr.agent.spans import spans_of
from brokkr.client import BrokerClient
from brokkr.wire.bodies import (
    INFRASTRUCTURE_RETRIES,
    MAX_MESSAGE,
    MAX_REASON,
    MAX_RETRIES_TOLD,
    CompleteWork,
    ReleaseWork,
    ReportProgress,
)
from brokkr.wire.custom_resource import render_attempts
from brokkr.work.errors import BodyTooLarge, BrokkrError, InvalidInput, MalformedBody
from brokkr.work.model import Phase, Work
from brokkr.work.trace import Span

log = structlog.get_logger()

WORKERS = 4
LOOK_AGAIN = timedelta(seconds=5)
PROGRESS_EVERY = timedelta(seconds=2)

_OUTCOMES: Final = {
    Phase.SUCCEEDED: "succeeded",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "cancelled",
}


class Reporting:
    """Sends progress and completions."""

    def __init__(
        self,
        *,
        client: BrokerClient,
        kube: KubeClient,
        caches: Caches,
        held: HeldClaims,
        clock: Callable[[], datetime],
        workqueue: Workqueue,
        step_of: Callable[[str], str],
        export: Callable[[Span], None] | None,
        metrics: Metrics,
    ) -> None:
        """
        Put it together; :meth:`run` starts it.

        Args:
            step_of: What a Work's attempt does now, in one word, by the Work's name.
            export: Where the spans of finished Work go, if they go anywhere.
        """
        self._client = client
        self._kube = kube
        self._caches = caches
        self._held = held
        self._clock = clock
        self._workqueue = workqueue
        self._step_of = step_of
        self._export = export
        self._metrics = metrics
        self._reported: dict[str, tuple[datetime, ReportProgress]] = {}
        self._marked: dict[str, str] = {}

    async def run(self) -> None:
        """Report for ever."""
        await work_off(self._workqueue, self._report, workers=WORKERS)

    async def _report(self, name: str) -> timedelta | None:
        work = self._caches.works.get(name) or self._caches.departed_works.get(name)
        if work is None:
            self._reported.pop(name, None)
            self._marked.pop(name, None)
            return None
        structlog.contextvars.bind_contextvars(**about(work))
        if work.acknowledged_at is not None:
            return None
        if work.resource_version == self._marked.get(name):
            return None  # an event of its objects was faster than that of our own mark
        if self._held.is_from_elsewhere(work):
            return LOOK_AGAIN
        if work.status.phase.is_terminal:
            await self._complete(work)
        elif self._held.holds(work) and work.status.attempts:
            return await self._report_progress(work)
        return None

    async def _complete(self, work: Work) -> None:
        if work.status.phase is Phase.CANCELLED and work.cancel_reason == CUT_OFF:
            await self._give_back(work)
        else:
            await self._send(work)
        # Before the resource says that all is told: rather twice than never.
        if self._export is not None:
            for span in spans_of(work):
                self._export(span)
        await mark_acknowledged(self._kube, work, self._clock())
        self._marked[work.name] = work.resource_version
        self._held.drop(work.claim.claim_id)
        self._caches.departed_works.pop(work.name, None)
        self._reported.pop(work.name, None)

    async def _give_back(self, work: Work) -> None:
        """Let others have what was stopped for the broker's absence; nobody cancelled it."""
        body = ReleaseWork(claim_id=work.claim.claim_id, reason=CUT_OFF)
        try:
            await self._client.release_work(work.claim.work_id, body)
        except BrokkrError as error:
            if not self._is_over(error, work):
                raise
            log.warning("release not taken", error=str(error))

    async def _send(self, work: Work) -> None:
        body = _completion(work)
        try:
            try:
                await self._client.complete_work(work.claim.work_id, body, trace=work.span)
            except (InvalidInput, BodyTooLarge, MalformedBody) as error:
                if not self._held.has_said(error, work.claim.broker):
                    raise
                # Better a result without its details than none.
                log.warning("result not taken", error=str(error))
                body = body.model_copy(update={"result": {}, "message": body.message[:1024]})
                await self._client.complete_work(work.claim.work_id, body, trace=work.span)
        except BrokkrError as error:
            if not self._is_over(error, work):
                raise
            # This very broker says that the claim is over: there is nobody to report to.
            log.warning("completion not taken", error=str(error))
        else:
            self._metrics.reported.labels(body.outcome).inc()
            log.info("work reported", outcome=body.outcome)

    def _is_over(self, error: BrokkrError, work: Work) -> bool:
        return self._held.ends(error, work.claim.work_id, work.claim.broker)

    async def _report_progress(self, work: Work) -> timedelta | None:
        """Tell of what is new, small things not more often than :data:`PROGRESS_EVERY`."""
        body = _progress(work, self._step_of(work.name), self._held.features)
        if body is None:
            return None
        now = self._clock()
        told_at, told = self._reported.get(work.name, (None, None))
        if told == body:
            return None
        if told_at is not None and told is not None and _is_small(told, body):
            left = told_at + PROGRESS_EVERY - now
            if left > timedelta(0):
                return left
        try:
            await self._client.report_progress(work.claim.work_id, body, trace=work.span)
        except BrokkrError as error:
            if isinstance(error, InvalidInput) and body.infrastructure_retries is not None:
                # Another replica may be of the version before: it goes without.
                log.warning("progress not taken", error=str(error))
                self._held.features -= {INFRASTRUCTURE_RETRIES}
                return PROGRESS_EVERY
            if not self._is_over(error, work):
                raise
            self._held.drop(work.claim.claim_id)
            await mark_cancelled(self._kube, work, CLAIM_LOST)
            return None
        self._reported[work.name] = now, body
        return None


def _is_small(told: ReportProgress, news: ReportProgress) -> bool:
    """Say whether nothing but the words is new: nobody acts on those."""
    return (told.phase, told.attempt, told.retries) == (news.phase, news.attempt, news.retries)


def _completion(work: Work) -> CompleteWork:
    last = work.status.attempts[-1] if work.status.attempts else None
    message = work.status.message
    if work.status.phase is Phase.FAILED and work.status.reason:
        message = f"{work.status.reason}: {message}"
    told = {
        "claim_id": work.claim.claim_id,
        "outcome": _OUTCOMES[work.status.phase],
        "retries": min(work.status.retries, MAX_RETRIES_TOLD),
        "message": message[:MAX_MESSAGE],
        "retryable": last is not None and last.retryable is True,
    }
    result = {**work.status.result, "attempts": render_attempts(work.status.attempts)}
    if last is not None and last.fault:
        result["fault"] = last.fault
    if work.infrastructure_retries:
        result["infrastructure_retries"] = work.infrastructure_retries
    try:
        return CompleteWork.model_validate({**told, "result": result})
    except ValidationError as error:
        # A status that somebody has edited says more than the broker takes; without this the
        # Work would never be reported, and its claim be kept.
        log.warning("result not told", error=str(error)[:MAX_REASON])
        return CompleteWork.model_validate(told)


def _progress(work: Work, step: str, features: Container[str]) -> ReportProgress | None:
    """
    Return what there is to tell; None if the status says what no broker would take.

    Args:
        features: What the broker understands that earlier ones do not.
    """
    spent = work.infrastructure_retries
    is_told = spent and INFRASTRUCTURE_RETRIES in features
    try:
        return ReportProgress(
            claim_id=work.claim.claim_id,
            phase=work.status.phase.value,
            attempt=work.attempt,
            retries=work.status.retries,
            message=work.status.message[:MAX_MESSAGE],
            retry_at=work.status.retry_at,
            step=step or None,
            **({"infrastructure_retries": spent} if is_told else {}),
        )
    except ValidationError as error:
        log.warning("progress not told", error=str(error)[:MAX_REASON])
        return None
