"""uvicorn's protocols, with an end to their patience: with half a head, an endless one, and who takes no answer."""

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.zero_copy_protocol import ZeroCopyProtocol

# Far more than clients send; what comes is kept in memory until the head is complete.
_MOST_HEAD_BYTES = 64 * 2**10
# For what is still on its way when the application is done with a WebSocket.
UNSENT_SECONDS = 10.0


class PatientWebSocket(WebSocketsSansIOProtocol):
    """Drops a client that does not take what is left for it: it would keep its connection without a seat."""

    async def run_asgi(self) -> None:
        """Serve a WebSocket to its end, and see to it that the connection ends too."""
        await super().run_asgi()
        self.loop.call_later(UNSENT_SECONDS, self.transport.abort)


def patient_protocol(seconds: float) -> type[ZeroCopyProtocol]:
    """Return a protocol whose clients have so long for the head of each request, from when they may send it."""

    class PatientProtocol(ZeroCopyProtocol):
        """Closes a connection that is neither answered nor asking."""

        _deadline: asyncio.TimerHandle | None = None
        _head_bytes = 0
        _in_body = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
            """Begin to wait for the first head."""
            super().connection_made(transport)
            self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            """Wait for nothing."""
            self._expect_nothing()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Take in a part of a request."""
            ends_a_body = self._in_body
            super().data_received(data)
            if self._deadline is not None and not (ends_a_body or self._in_body):
                self._head_bytes += len(data)
                if self._head_bytes > _MOST_HEAD_BYTES:
                    self.transport.abort()

        def on_headers_complete(self) -> None:
            """Begin to answer."""
            self._expect_nothing()
            self._in_body = True
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            """Know that what comes next is a head."""
            self._in_body = False
            super().on_message_complete()

        def on_response_complete(self) -> None:
            """Wait for the next head, and for the rest of a body that was answered before it was here."""
            super().on_response_complete()
            if not self.transport.is_closing() and self.cycle.response_complete:
                self._expect_head()

        def _expect_head(self) -> None:
            self._expect_nothing()
            self._head_bytes = 0
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

        def _expect_nothing(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

    return PatientProtocol
