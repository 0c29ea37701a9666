"""The broker for programs that run on asyncio."""

import asyncio
import os
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeVar, Unpack
from uuid import UUID, uuid4

from brokkr.client.endpoints import PATIENCE_SECONDS, RECONNECT_SECONDS, BrokerClient
from brokkr.client.submission import (
    SubmitOptions,
    TargetSource,
    TemplateSource,
    submission_of,
)
from brokkr.client.transport import retry_after_of
from brokkr.wire.bodies import WorkBody, WorkState
from brokkr.wire.events import WorkEvent
from brokkr.work.errors import (
    BrokerUnavailable,
    InvalidInput,
    LimitReached,
    Unauthenticated,
    WorkFinished,
)
from brokkr.work.trace import TraceContext

DEFAULT_URL: Final = "http://127.0.0.1:3000"
_LONGEST_PAUSE_SECONDS = 8.0

_T = TypeVar("_T")
Away = Callable[[BrokerUnavailable | LimitReached], None]


class AsyncClient:
    """
    Submits Work and follows it; close it, or use it as a context.

    What the broker does not answer is asked again, and so is what it refuses for a limit.

    Attributes:
        api: The whole REST API, one method for each endpoint, which asks once.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """
        Prepare to talk to a broker; nothing is sent yet.  Needs a running event loop.

        Args:
            url: Where the broker is, without ``/api/v1``; else what ``BROKKR_URL`` says, else
                :data:`DEFAULT_URL`.
            key: A generator's or an admin's; else what ``BROKKR_KEY`` says.
            patience_seconds: How long a call goes on without a broker, or at a limit.  What
                has been asked then is still waited for, at most half a minute.

        Raises:
            Unauthenticated: There is no key.
        """
        key = key or os.environ.get("BROKKR_KEY")
        if not key:
            raise Unauthenticated("no key was given, and BROKKR_KEY is not set")
        self.api = BrokerClient(url or os.environ.get("BROKKR_URL") or DEFAULT_URL, key)
        self._patience_seconds = patience_seconds

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self.api.close()

    async def submit(
        self, template: TemplateSource, *, target: TargetSource, **options: Unpack[SubmitOptions]
    ) -> WorkBody:
        """
        Submit Work, once, however often that has to be repeated.

        Every repetition carries the same idempotency key, so an answer that was lost makes no
        second Work.  A key is made up unless one is given; give one to make it hold across
        processes, such as the number of a CI job.

        Args:
            template: What to run: YAML or JSON text, a path, an object or a list of them.
            target: The labels that the agent must have, or a :class:`TargetBody`.
            options: See :class:`SubmitOptions`.

        Returns:
            The Work as it was queued; ``eligible_agents`` says how many could take it now.

        Raises:
            InvalidInput: Something is wrong with it; ``field`` says where.
            MalformedBody: The template is not YAML.
            IdempotencyKeyReused: The key was used for something else.
            LimitReached: A limit of the generator's was reached for as long as the patience lasts.
            BrokerUnavailable: There was no broker for so long.  The Work may be queued: only
                submitting again with the same key makes sure.
            Unauthenticated: The key opens nothing.
            NotPermitted: It is not one for submitting.
        """
        trace = TraceContext.parse(options.pop("traceparent", None))
        options.setdefault("idempotency_key", str(uuid4()))
        body = submission_of(template, target, **options)
        return await self._patiently(lambda: self.api.submit_work(body, trace=trace))

    async def get(self, work_id: UUID | str) -> WorkBody:
        """
        Return a Work, wherever it is.

        Raises:
            WorkNotFound: There is no such Work for this key.
            BrokerUnavailable: There was no broker for as long as the patience lasts.
        """
        parsed = _parse_id(work_id)
        return await self._patiently(lambda: self.api.get_work(parsed))

    async def wait(self, work_id: UUID | str, *, timeout_seconds: float | None = None) -> WorkBody:
        """
        Wait until a Work is finished, and return it then: ``success`` says how it ended.

        Hears of the end from the stream of events.  Where that cannot be had, asks now and then.

        Raises:
            TimeoutError: It is not finished after so many seconds.  It goes on.
            WorkNotFound: There is no such Work for this key.
            BrokerUnavailable: There was no broker for as long as the patience lasts.
        """
        parsed = _parse_id(work_id)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._end_of(parsed)
        except TimeoutError as error:
            raise TimeoutError(
                f"work {parsed} is not finished after {timeout_seconds} s"
            ) from error

    def watch(
        self, work_id: UUID | str, *, after: int = 0, away: Away | None = None
    ) -> AsyncGenerator[WorkEvent]:
        """
        Yield what happened to a Work, and what happens, until it is finished.

        Nothing is missed and nothing comes twice when the broker is away meanwhile.

        Args:
            after: The number of the last event that is known.
            away: Told once each time that the broker does not serve the stream.

        Raises:
            WorkNotFound: There is no such Work for this key.
            BrokerUnavailable: There was no broker for as long as the patience lasts.
            LimitReached: As many follow Work there, for as long.
        """
        return watch(
            self.api,
            _parse_id(work_id),
            after=after,
            away=away,
            patience_seconds=self._patience_seconds,
        )

    async def cancel(self, work_id: UUID | str) -> WorkBody:
        """
        Cancel a Work; one that is cancelled already is returned.

        One that an agent holds is not finished yet: the agent stops it a little later, and
        :meth:`wait` waits for that.

        Raises:
            WorkFinished: It has ended in another way.
            WorkNotFound: There is no such Work for this key.
            BrokerUnavailable: There was no broker for as long as the patience lasts.
        """
        parsed = _parse_id(work_id)
        try:
            return await self._patiently(lambda: self.api.cancel_work(parsed))
        except WorkFinished:  # by an earlier request, it may be, whose answer was lost
            work = await self.get(parsed)
            if work.status is not WorkState.CANCELLED:
                raise
            return work

    async def _end_of(self, work_id: UUID) -> WorkBody:
        after, is_said_to_be_over = 0, False
        while True:
            work = await self.get(work_id)
            if work.status.is_finished:
                return work
            # It was queued again this moment; or a proxy has ended the stream.
            pause = RECONNECT_SECONDS if is_said_to_be_over else 0.0
            await asyncio.sleep(min(pause, self._patience_seconds))
            pause, is_said_to_be_over = 0.0, False
            try:
                stream = self.api.follow_events(work_id, after=after, patience_seconds=0)
                async with aclosing(stream) as events:
                    async for event in events:
                        after = event.number
                is_said_to_be_over = True
            except (BrokerUnavailable, LimitReached) as error:
                pause = max(RECONNECT_SECONDS, retry_after_of(error))
            await asyncio.sleep(min(pause, self._patience_seconds))

    async def _patiently(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        return await patiently(ask, patience_seconds=self._patience_seconds)


async def patiently(
    ask: Callable[[], Awaitable[_T]], *, patience_seconds: float = PATIENCE_SECONDS
) -> _T:
    """
    Ask until there is an answer; what is asked must be such as may be done twice.

    Raises:
        BrokerUnavailable: There was no broker for so long.
        LimitReached: There was no room for so long, or there will be none.
    """
    until = monotonic() + patience_seconds
    usual = RECONNECT_SECONDS
    while True:
        try:
            return await ask()
        except (BrokerUnavailable, LimitReached) as error:
            # Those whose broker was stopped must not all come back at once.
            said = retry_after_of(error) * random.uniform(1, 1.25)  # noqa: S311
            pause = max(usual * random.uniform(0.5, 1), said)  # noqa: S311
            if monotonic() + pause > until:
                raise
        await asyncio.sleep(pause)
        usual = min(2 * usual, _LONGEST_PAUSE_SECONDS)


async def watch(
    api: BrokerClient,
    work_id: UUID,
    *,
    after: int = 0,
    away: Away | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> AsyncGenerator[WorkEvent]:
    """Yield what :meth:`AsyncClient.watch` does."""
    while True:
        stream = api.follow_events(
            work_id, after=after, away=away, patience_seconds=patience_seconds
        )
        async with aclosing(stream) as events:
            async for event in events:
                after = event.number
                yield event
        work = await patiently(lambda: api.get_work(work_id), patience_seconds=patience_seconds)
        if work.status.is_finished:
            return
        # It was queued again this moment; or a proxy has ended the stream.
        await asyncio.sleep(RECONNECT_SECONDS)


def _parse_id(work_id: UUID | str) -> UUID:
    try:
        return UUID(str(work_id))
    except ValueError as error:
        raise InvalidInput("work_id", f"{work_id!r} is not a Work's id") from error
