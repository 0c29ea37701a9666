"""
One connection of a client, that cannot hold the broker up: bounded in size, number and time.

The server waits for ever for the rest of a request, and parses all that arrives while an
answer is being made.  Nothing else looks at that, and no key has been seen.
"""

from asyncio import TimerHandle, Transport
from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_PIPELINED: Final = 16
"""Requests that a client may send ahead, before the first of them is answered."""
HEAD_SECONDS: Final = 30.0
"""For the head of a request, from the connection's start or from its first byte."""


class Pipelined(Exception):
    """A client sends requests and takes no answers."""


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as the server speaks it, within limits of what is not yet a request."""

    # What came in since the last time that something became of it.
    _held_back = 0
    _deadline: TimerHandle | None = None
    # The request that is being answered; those behind it are in the pipeline.
    _current: RequestResponseCycle | None = None

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
        self._held_back += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._held_back > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self._is_answering():
            # A part of a head, or the rest of a body that nobody wanted to read.
            self._wait_for_a_head()

    def on_headers_complete(self) -> None:
        """
        Begin to serve the request, or put it behind those that came before it.

        Raises:
            Pipelined: There are too many; the parser ends the connection.
        """
        self._held_back = 0
        self._stop_waiting()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Pipelined
        behind = len(self.pipeline)
        super().on_headers_complete()
        if len(self.pipeline) == behind:
            self._current = self.cycle

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._held_back = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._held_back = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the request that has waited longest."""
        if self.pipeline:
            self._current, _ = self.pipeline[-1]
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; in the middle of an answer it would be taken for its rest."""
        current = self._current
        if current is not None and current.response_started and not current.response_complete:
            self.transport.close()
        else:
            super().send_400_response(msg)
        self._let_go()

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
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """End the connection, and say why if nothing else is being said."""
        if not self._is_answering():
            self.transport.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\n"
                "connection: close\r\ncontent-length: 0\r\n\r\n".encode()
            )
        self.transport.close()
        self._let_go()
