"""The broker for scripts: what the asynchronous client does, for callers that wait."""

import asyncio
from collections.abc import Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from uuid import UUID

from brokkr.client.asynchronous import AsyncClient, Away
from brokkr.client.endpoints import PATIENCE_SECONDS
from brokkr.client.submission import SubmitOptions, TargetSource, TemplateSource
from brokkr.wire.bodies import WorkBody
from brokkr.wire.events import WorkEvent

_T = TypeVar("_T")


class Client:
    """
    Submits Work and follows it; close it, or use it as a context.

    Any number of threads may use one client at once; a process that is forked needs its own.
    The methods are those of :class:`~brokkr.client.AsyncClient`, and mean and raise the same.
    Ctrl-C ends a call; it does nothing to the Work.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """
        Prepare to talk to a broker, on an event loop in a thread of its own.

        Args:
            url: Where the broker is, without ``/api/v1``; else what ``BROKKR_URL`` says.
            key: A generator's or an admin's; else what ``BROKKR_KEY`` says.
            patience_seconds: How long a call goes on without a broker, or at a limit.

        Raises:
            Unauthenticated: There is no key.
        """
        opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, AsyncClient]] = Future()

        async def live() -> None:
            try:
                client = AsyncClient(url, key, patience_seconds=patience_seconds)
            except BaseException as error:  # noqa: BLE001 - it is raised where the client is made
                opened.set_exception(error)
                return
            async with client:
                closing = asyncio.Event()
                opened.set_result((asyncio.get_running_loop(), closing, client))
                await closing.wait()
                # Before the connections go: nobody shall take that for a broker that is away.
                calls = asyncio.all_tasks() - {asyncio.current_task()}
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)

        self._thread = Thread(target=lambda: asyncio.run(live()), name="brokkr client", daemon=True)
        self._thread.start()
        self._loop, self._closing, self._client = opened.result()
        self._is_closed = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; calls of other threads end with an error."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def submit(
        self, template: TemplateSource, *, target: TargetSource, **options: Unpack[SubmitOptions]
    ) -> WorkBody:
        """Submit Work, once; see :meth:`AsyncClient.submit`."""
        return self._run(self._client.submit(template, target=target, **options))

    def get(self, work_id: UUID | str) -> WorkBody:
        """Return a Work; see :meth:`AsyncClient.get`."""
        return self._run(self._client.get(work_id))

    def wait(self, work_id: UUID | str, *, timeout_seconds: float | None = None) -> WorkBody:
        """Wait until a Work is finished; see :meth:`AsyncClient.wait`."""
        return self._run(self._client.wait(work_id, timeout_seconds=timeout_seconds))

    def watch(
        self, work_id: UUID | str, *, after: int = 0, away: Away | None = None
    ) -> Iterator[WorkEvent]:
        """
        Yield what happens to a Work until it is finished; see :meth:`AsyncClient.watch`.

        ``away`` is called in the client's thread.
        """
        events = self._client.watch(work_id, after=after, away=away)

        async def find_next() -> WorkEvent | None:
            return await anext(events, None)

        try:
            while (event := self._run(find_next())) is not None:
                yield event
        finally:
            with suppress(RuntimeError):  # closed meanwhile, and with it the stream
                self._run(events.aclose())

    def cancel(self, work_id: UUID | str) -> WorkBody:
        """Cancel a Work; see :meth:`AsyncClient.cancel`."""
        return self._run(self._client.cancel(work_id))

    def _run(self, call: Coroutine[Any, Any, _T]) -> _T:
        """
        Run a call in the client's thread, and wait for it.

        Raises:
            RuntimeError: The client is closed, or was meanwhile.
        """
        with self._lock:
            if self._is_closed:
                call.close()
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise RuntimeError("the client was closed meanwhile") from error
        finally:
            future.cancel()  # if the caller was interrupted
