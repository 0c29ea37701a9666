"""
One connection of a client, that may not send endless headers.

The parser keeps what belongs to a request's head, or to the trailers of a body in chunks,
until that is complete.  Nothing else looks at how much this is, and no key has been seen.
"""

from http import HTTPStatus
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
_TOO_LARGE = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_REFUSAL = (
    f"HTTP/1.1 {_TOO_LARGE.value} {_TOO_LARGE.phrase}\r\n"
    "connection: close\r\ncontent-length: 0\r\n\r\n"
).encode()


class Connection(HttpToolsProtocol):
    """HTTP/1.1 as the server speaks it, up to a size of what is neither a request nor a body."""

    # What came in since the last time that something became of it.
    _held_back = 0

    def data_received(self, data: bytes) -> None:
        """Take what has arrived."""
        self._held_back += len(data)
        super().data_received(data)
        if self._held_back > MAX_HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_REFUSAL)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Begin to serve the request."""
        self._held_back = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._held_back = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        self._held_back = 0
        super().on_message_complete()
