"""
How a request gets to the broker, and whether what comes back is the broker's answer.

It is if it has the status that the API documents, and a body that can be read; or if it is a
problem document of this API.  Everything else, a proxy's page for instance, is
:class:`~brokkr.work.errors.BrokerUnavailable`: nobody knows what has become of the request.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from pydantic import BaseModel, ValidationError

from brokkr import __version__
from brokkr.wire.problem import MEDIA_TYPE, read_problem
from brokkr.work.errors import BrokerUnavailable, BrokkrError
from brokkr.work.trace import TraceContext

_Body = TypeVar("_Body", bound=BaseModel)
Parameter: TypeAlias = str | int | Sequence[str] | None

TIMEOUT_SECONDS = 30
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_PROBLEM_BYTES = 64 * 1024
SILENCE_SECONDS = 45
"""A stream that says nothing for so long is broken: a broker speaks every 15 seconds."""
_MAX_ADDRESS: Final = 200


class Transport:
    """A connection to one broker with one key."""

    def __init__(self, url: str, key: str) -> None:
        """Prepare to talk to a broker; nothing is sent yet."""
        self._base = url.rstrip("/") + "/api/v1"
        self._session = aiohttp.ClientSession(
            headers={
                "Authorization": f"Bearer {key}",
                "User-Agent": f"brokkr/{__version__}",
                "Accept-Encoding": "identity",
            },
            # What is packed is small until it is unpacked; so nothing is.
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def ask(
        self,
        answer: type[_Body],
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, Parameter] | None = None,
        statuses: Sequence[int] = (HTTPStatus.OK,),
        wait: float = 0,
        trace: TraceContext | None = None,
        fits: Callable[[_Body], bool] = lambda _: True,
    ) -> _Body:
        """
        Send a request and return the answer.

        Args:
            statuses: Of a success, as the API documents them.
            wait: For how many seconds the broker may wait before it answers.
            fits: Whether an answer is one to this request: about the same Work, for instance.

        Raises:
            BrokerUnavailable: No broker has answered, or not to this.
            BrokkrError: The broker has refused it; see :mod:`brokkr.wire.problem`.
        """
        content = await self._send(
            method, path, body=body, query=query, statuses=statuses, wait=wait, trace=trace
        )
        try:
            found = answer.model_validate_json(content)
        except ValidationError as error:
            raise self.no_broker("sent content that cannot be read") from error
        if not fits(found):
            raise self.no_broker("sent the answer to another request")
        return found

    async def tell(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        trace: TraceContext | None = None,
    ) -> None:
        """
        Send a request that is answered with 204 and no content.

        Raises:
            BrokerUnavailable: No broker has answered.
            BrokkrError: The broker has refused it.
        """
        await self._send(method, path, body=body, statuses=(HTTPStatus.NO_CONTENT,), trace=trace)

    @asynccontextmanager
    async def stream(
        self, path: str, *, media_type: str, query: Mapping[str, Parameter], last_id: int
    ) -> AsyncIterator[AsyncIterator[bytes] | None]:
        """
        Open a stream for the length of the block; None if there is nothing more to come.

        Raises:
            BrokerUnavailable: No broker has answered, or the stream is broken.
            BrokkrError: The broker has refused it.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=TIMEOUT_SECONDS, sock_read=SILENCE_SECONDS
        )
        try:
            async with self._session.get(
                self._base + path,
                params=_parameters(query),
                headers={"Last-Event-ID": str(last_id)},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if response.status == HTTPStatus.NO_CONTENT:
                    yield None
                elif response.status != HTTPStatus.OK or response.content_type != media_type:
                    raise await self._refusal(response)
                else:
                    yield response.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._no_answer(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: BaseModel | None = None,
        query: Mapping[str, Parameter] | None = None,
        statuses: Sequence[int],
        wait: float = 0,
        trace: TraceContext | None = None,
    ) -> bytes:
        content = None if body is None else body.model_dump_json(exclude_unset=True)
        headers = {} if content is None else {"Content-Type": "application/json"}
        if trace is not None:
            headers["traceparent"] = str(trace)
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=content,
                params=_parameters(query or {}),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS + wait),
                allow_redirects=False,
            ) as response:
                if response.status not in statuses:
                    raise await self._refusal(response)
                return await _read(response, most=MAX_ANSWER_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._no_answer(error) from error

    async def _refusal(self, response: aiohttp.ClientResponse) -> BrokkrError:
        """Return what the broker has said; of what somebody else has said, that it is away."""
        error = None
        if response.content_type == MEDIA_TYPE:
            error = read_problem(response.status, await _document(response))
        if error is None:
            error = self.no_broker(f"answered {_what_came(response)}")
        if isinstance(error, BrokerUnavailable):
            error.retry_after = _asked_for(response.headers)
        return error

    def no_broker(self, what: str) -> BrokerUnavailable:
        """Return what to raise because of an answer that no broker gives."""
        return BrokerUnavailable(
            f"{self._base} {what}; no broker does that: "
            "is the address right, or does a proxy in between answer by itself?"
        )

    def _no_answer(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"no answer from {self._base}: {error or type(error).__name__}")


def retry_after_of(error: Exception) -> float:
    """Return after how many seconds it is worth trying again; 0 if nobody has said so."""
    said = getattr(error, "retry_after", 0)
    return said if isinstance(said, int | float) and 0 < said < math.inf else 0


def _asked_for(headers: Mapping[str, str]) -> float:
    """
    Return for how many seconds ``Retry-After`` asks; 0 if it cannot be read.

    It is a number or a date (RFC 9110, section 10.2.3).  A date counts from the answer's own
    ``Date``: the two clocks need not agree.
    """
    after = headers.get("Retry-After", "")
    if after.isdecimal() and len(after) < 10:
        return int(after)
    try:
        asked = parsedate_to_datetime(after) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError, OverflowError):
        return 0
    return max(0.0, asked.total_seconds())


def _parameters(query: Mapping[str, Parameter]) -> list[tuple[str, str]]:
    """Render what was given; a parameter of several values stands there several times."""
    return [
        (name, str(each))
        for name, value in query.items()
        if value is not None
        for each in ([value] if isinstance(value, str | int) else value)
    ]


async def _read(response: aiohttp.ClientResponse, *, most: int) -> bytes:
    """Read an answer, but not without end: who asks need not trust who answers."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > most:
            raise BrokerUnavailable(f"the response exceeds {most} bytes")
    return bytes(content)


async def _document(response: aiohttp.ClientResponse) -> object:
    content = await _read(response, most=MAX_PROBLEM_BYTES)
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _what_came(response: aiohttp.ClientResponse) -> str:
    """Describe an answer in a few words: its status, its type, and where it leads."""
    words = f"{response.status} {response.reason or ''}".rstrip()
    if "Content-Type" in response.headers:
        words += f" ({response.content_type})"
    if "Location" in response.headers:
        # Without its path and query: those may hold what is not to be logged.
        to = urlsplit(urljoin(str(response.url), response.headers["Location"]))
        words += f", a redirect to {to.scheme}://{to.hostname}"
    return words[:_MAX_ADDRESS]
