"""
One connection of a client, that cannot hold the broker up: bounded in size, number and time.

The server waits for ever for the rest of a request, and parses all that arrives while an
answer is being made.  Nothing else looks at that, and no key has been seen.
"""

# Note [Lingering close]
#
# To close a connection on which the client still sends makes the kernel answer its data with a
# reset, which may reach the client before it has read the answer, and takes that away.  So an
# answer that comes before the end of a request ends our side only; what still comes is read
# and dropped, within limits, until the client has seen the answer and closes.

import re
from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_PIPELINED: Final = 16
"""Requests that a client may send ahead, before the first of them is answered."""
HEAD_SECONDS: Final = 30.0
"""For the head of a request, from the connection's start or from its first byte."""
LINGER_SECONDS: Final = 10.0
LINGER_BYTES: Final = 64 * 1024 * 1024
"""How long, and how much, is read of a body that is not wanted: Note [Lingering close]."""
LINGER_BYTES_OF_NONE: Final = 4 * 1024 * 1024
"""How much is read of what is no request."""

_HOST: Final = re.compile(rb"[A-Za-z0-9._~:%!$&'()*+,;=\[\]-]*")


class Pipelined(Exception):
    """A client sends requests and takes no answers."""


class BadHead(Exception):
    """The head of a request leaves open what is asked, or where the request ends."""


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as the server speaks it, within limits of what is not yet a request."""

    # What came in since the last time that something became of it.
    _held_back = 0
    _deadline: TimerHandle | None = None
    # The request that is being answered; those behind it are in the pipeline.
    _current: RequestResponseCycle | None = None
    # Whether all of the last request has come.
    _is_whole = True
    # How much more is read before the connection is closed; None before it is to be closed.
    _lingers_for: int | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request, but not for ever."""
        super().connection_made(transport)
        self._wait_for_a_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client, and let who answers it know."""
        self._stop_waiting()
        self._let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        if self._lingers_for is not None:
            self._lingers_for -= len(data)
            if self._lingers_for < 0:
                self.transport.abort()
            return
        self._held_back += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._lingers_for is not None:
            return
        if self._held_back > MAX_HEAD_BYTES:
            self._is_whole = False
            self._refuse(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, is_answered=self._is_answering()
            )
        elif not self._is_answering():
            # A part of a head, or the rest of a body that nobody wanted to read.
            self._wait_for_a_head()

    def on_headers_complete(self) -> None:
        """
        Begin to serve the request, or put it behind those that came before it.

        Raises:
            BadHead: It is none; the parser ends the connection.
            Pipelined: There are too many; the parser ends the connection.
        """
        self._held_back = 0
        self._stop_waiting()
        _check_head(self.headers, self.parser.get_http_version())
        self._is_whole = False
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Pipelined
        behind = len(self.pipeline)
        super().on_headers_complete()
        if self.expect_100_continue:
            # Whether the body comes after all, if the answer does not wait for it, nobody knows.
            self.cycle.keep_alive = False
        if not self.cycle.keep_alive:
            self.cycle.transport = _Gentle(self)  # type: ignore[assignment]
        if len(self.pipeline) == behind:
            self._current = self.cycle

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._held_back = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._held_back = 0
        self._is_whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the request that has waited longest."""
        if self._lingers_for is not None:
            return
        if self.pipeline:
            self._current, _ = self.pipeline[-1]
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; in the middle of an answer it would be taken for its rest."""
        self._is_whole = False  # where it ends is not known any more
        if self._current is not None and self._current.response_started and self._is_answering():
            self.transport.close()
            self._let_go()
        else:
            self._refuse(HTTPStatus.BAD_REQUEST, msg, is_answered=False)

    def close_gently(self, *, within: int = LINGER_BYTES) -> None:
        """Close, but not in the face of a client that still sends: Note [Lingering close]."""
        if self._is_whole or self.transport.is_closing():
            self.transport.close()
            return
        self._lingers_for = within
        self._stop_waiting()
        self.transport.write_eof()
        self.flow.resume_reading()
        self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _is_answering(self) -> bool:
        return self._current is not None and not self._current.response_complete

    def _let_go(self) -> None:
        """Have nothing more written: the transport takes it as a mistake."""
        if self._current is not None and not self._current.response_complete:
            self._current.disconnected = True
            self._current.message_event.set()

    def _wait_for_a_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self._is_whole or self._is_answering():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, is_answered=self._is_answering())
        else:
            self.transport.close()  # the rest of a request that is answered

    def _refuse(self, status: HTTPStatus, words: str = "", *, is_answered: bool) -> None:
        """End the connection, and say why if nothing else is being said."""
        if not is_answered:
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                "content-type: text/plain; charset=utf-8\r\n"
                f"connection: close\r\ncontent-length: {len(words)}\r\n\r\n{words}".encode()
            )
        self.close_gently(within=LINGER_BYTES_OF_NONE)
        self._let_go()


class _Gentle:
    """The transport of the last request of a connection: to close it is to linger."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.transport, name)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close_gently()


def _check_head(headers: list[tuple[bytes, bytes]], version: str) -> None:
    """
    Insist on what RFC 9112 (3.2, 6.1) has a server insist on.

    Raises:
        BadHead: There is not the one host, or a transfer coding that is not read here.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise BadHead("a request must have one Host header")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadHead("the Host header is not a host")
    for name, value in headers:
        if name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            raise BadHead("no transfer coding but chunked is read here")
