"""What holds for every request, WebSockets included: an id, safe headers, a trusted host, a body of bounded size."""

import asyncio
from time import monotonic

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from app import errors
from app.telemetry import Traffic
from app.zero_copy_protocol import EXTENSION
from core.errors import TooLarge
from core.ids import new_id
from core.settings import Settings

# The page has a policy of its own; nothing else that is answered is meant to be shown by a browser.
_SAFE = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Of a body, within the time that a client is given again and again.
_LEAST_BYTES = 16 * 2**10
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class RequestId:
    """Give every answer an `X-Request-Id` that the log knows too, and answer what nobody foresaw with a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        request_id, started = new_id("req"), False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] in _STARTS:
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in _SAFE.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except (ClientDisconnect, ClientDisconnected):
                pass  # in mid-upload, or in mid-handshake: there is nobody to tell
            except Exception as error:
                if started:
                    raise
                await errors.internal(error)(scope, receive, send_with_id)


class Counted:
    """Count answers, and the bytes in them."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app, self._traffic = app, traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._traffic.answered(message["status"])
            elif message["type"] == "http.response.body":
                self._traffic.sent(len(message.get("body", b"")))
            elif message["type"] == EXTENSION:
                self._traffic.sent(message["count"])
            await send(message)

        await self._app(scope, receive, send_counted)


class AtOnce:
    """Refuse requests while as many are being answered as may be: memory and threads are finite."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._most, self._open = app, settings.max_requests_at_once, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whoever asks whether the process is alive is always answered."""
        if scope["type"] != "http" or scope["path"] == "/healthz":
            return await self._app(scope, receive, send)
        if self._open >= self._most:
            detail = (
                f"This server answers {self._most:,} requests at once, as many as it may "
                "(EPOCHD_MAX_REQUESTS_AT_ONCE). Try again in a few seconds."
            )
            return await errors.answer(errors.Unavailable(detail))(scope, receive, send)
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1


class TrustedHost:
    """Refuse requests that were meant for another host, or come from another's page.

    A page elsewhere could point its own name at this server, and browsers do not ask before they open a WebSocket.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = {host.lower() for host in settings.allowed_hosts} | {_as_in_url(settings.host.lower())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._trusts(host) and _own(origin, host):
            return await self._app(scope, receive, send)
        if self._trusts(host):
            detail = "A page of another origin may not use this server: open its own page, or leave the Origin out."
            return await errors.answer(errors.Forbidden(detail))(scope, receive, send)
        detail = "This server does not go by that host name. EPOCHD_ALLOWED_HOSTS lists those that it answers to."
        await errors.answer(errors.ForeignHost(detail))(scope, receive, send)

    def _trusts(self, host: str) -> bool:
        name = host.lower()
        if not name.endswith("]"):  # an IPv6 address without a port
            name, _, port = name.rpartition(":") if ":" in name else (name, "", "")
            if port and not (port.isascii() and port.isdigit()):
                return False
        return name in self._allowed or ("*" in self._allowed and bool(name))


class PacedBody:
    """Give up on a body that trickles: whoever sends one would hold a request open for as long as they like."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._seconds = app, settings.slow_client_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        whole, came, left = False, 0, self._seconds

        async def receive_in_time() -> Message:
            nonlocal whole, came, left
            if whole:  # what comes now is the client's leaving
                return await receive()
            began = monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:
                raise errors.SlowClient(
                    f"The body came too slowly: within {self._seconds:g} s at a time {_LEAST_BYTES:,} bytes of it, or "
                    "its end, have to be here (EPOCHD_SLOW_CLIENT_SECONDS). Send it again over a better connection."
                ) from None
            # Only what the client takes counts, not how long this server needs in between.
            came, left = came + len(message.get("body", b"")), left - (monotonic() - began)
            if came >= _LEAST_BYTES:
                came, left = 0, self._seconds
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)


class BodyLimit:
    """Refuse a body over the limit: by its stated length at once, without one as soon as too much has come."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        match (scope["method"], scope["path"]):
            case ("POST" | "PUT", "/datasets"):
                limit, name = self._settings.max_upload_bytes, "EPOCHD_MAX_UPLOAD_BYTES"
            case ("PATCH", path) if path.startswith("/uploads/"):
                limit, name = self._settings.max_upload_bytes, "EPOCHD_MAX_UPLOAD_BYTES"
            case ("POST", "/tokenizers"):
                limit, name = self._settings.max_tokenizer_bytes, "EPOCHD_MAX_TOKENIZER_BYTES"
            case _:
                limit, name = self._settings.max_body_bytes, "EPOCHD_MAX_BODY_BYTES"
        too_large = TooLarge(f"The body is over this server's limit of {limit:,} bytes ({name}).")
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isascii() and stated.isdigit() and int(stated[:20]) > limit:
            return await errors.answer(too_large)(scope, receive, send)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large
            return message

        await self._app(scope, receive_counted, send)


def _own(origin: str | None, host: str) -> bool:
    return origin is None or origin in (f"http://{host}", f"https://{host}")


def _as_in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
