"""What happened to a Work: once as a page, or from now on as a stream."""

from collections.abc import AsyncIterator
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from brokkr.broker.api.auth import authenticate, check_sees
from brokkr.broker.api.call import Call
from brokkr.broker.api.work import Limit
from brokkr.broker.db import execution_log, work_events
from brokkr.broker.db.pool import transaction
from brokkr.broker.db.work_events import News
from brokkr.broker.followers import Follower
from brokkr.wire.events import (
    STILL_THERE,
    STREAM_MEDIA_TYPE,
    EventPage,
    render_event,
    render_retry,
)
from brokkr.work.errors import DatabaseUnavailable, Unauthenticated

QUIET: Final = timedelta(seconds=15)
"""For so long a stream may say nothing; proxies close connections that look dead."""
_RETRY_MILLISECONDS: Final = 1000

Number = Annotated[int, Query(ge=0, le=2**31 - 1, description="The last event that is known.")]
LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID", ge=0, le=2**31 - 1, description="The same, of who connects again."
    ),
]

ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A page; or with `follow` a stream, which ends with the Work.",
        "model": EventPage,
        "content": {STREAM_MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "The Work is finished and there is nothing to follow any more."},
}
"""What :func:`list_events` answers, for the description of the API."""


async def list_events(
    *,
    call: Call,
    work_id: UUID,
    after: Number = 0,
    follow: bool = False,
    limit: Limit = 100,
    last_event_id: LastEventId = None,
) -> Response:
    """
    List what happened to a Work; with ``follow``, also what happens, until it is finished.

    A caller who follows as many Works as one may is answered 429.
    """
    after = last_event_id if follow and last_event_id is not None else after
    place = (work_id, after)
    async with transaction(call.database) as db:
        work = await execution_log.get_work(db, work_id)
        check_sees(call.caller, work)
        news = (await work_events.list_news(db, [place], limit=limit)).get(place, News())
    if not follow:
        last = news.events[-1].number if len(news.events) == limit else None
        page = EventPage(items=news.events, next_after=last)
        return call.answer_with(page, status=HTTPStatus.OK)
    if news.is_over and not news.events:
        return Response(status_code=HTTPStatus.NO_CONTENT)  # or readers would connect again
    return _Stream(call, work_id, after, news)


class _Stream(StreamingResponse):
    """A stream that is a follower for as long as it is sent, however that ends."""

    def __init__(self, call: Call, work_id: UUID, after: int, news: News) -> None:
        super().__init__(
            (),
            media_type=STREAM_MEDIA_TYPE,
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
        self._call = call
        self._place = (work_id, news.events[-1].number if news.events else after)
        self._first = news

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work_id, after = self._place
        caller = self._call.caller.actor
        with self._call.broker.followers.follow(work_id, after=after, caller=caller) as follower:
            self.body_iterator = self._render(follower)
            await super().__call__(scope, receive, send)

    async def _render(self, follower: Follower) -> AsyncIterator[bytes]:
        yield render_retry(_RETRY_MILLISECONDS)
        news = self._first
        while True:
            yield b"".join(map(render_event, news.events)) or STILL_THERE
            if news.is_over or self._call.broker.stopping.is_set():
                return
            news = await follower.next(within=QUIET)
            if not await self._is_welcome():
                return

    async def _is_welcome(self) -> bool:
        """Say whether the key still opens the stream: it may have been revoked."""
        try:
            await authenticate(self._call)
        except Unauthenticated:
            return False
        except DatabaseUnavailable:
            return True  # there is nothing to say until it is back
        return True
