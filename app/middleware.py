"""What holds for every request, WebSockets included: an id, a trusted host, a body of bounded size."""

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors
from app.telemetry import Traffic
from core.errors import TooLarge
from core.ids import new_id
from core.settings import Settings

# Whose body is a file.
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
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except ClientDisconnect:
                pass  # in mid-upload: there is nobody to tell
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
            if message["type"] == "websocket.send":
                self._traffic.streamed(len(message["text"].encode()))
            elif message["type"] == "http.response.start":
                self._traffic.answered(message["status"])
            elif message["type"] == "http.response.body":
                self._traffic.sent(len(message.get("body", b"")))
            await send(message)

        await self._app(scope, receive, send_counted)


class TrustedHost:
    """Refuse requests that were meant for another host: a page elsewhere could point its own name at this server."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._allowed = {host.lower() for host in settings.allowed_hosts} | {_as_in_url(settings.host.lower())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan" or self._trusts(Headers(scope=scope).get("host", "")):
            return await self._app(scope, receive, send)
        detail = "This server does not go by that host name. EPOCHD_ALLOWED_HOSTS lists those that it answers to."
        await errors.answer(errors.ForeignHost(detail))(scope, receive, send)

    def _trusts(self, host: str) -> bool:
        name = host.lower()
        if not name.endswith("]"):  # an IPv6 address without a port
            name, _, port = name.rpartition(":") if ":" in name else (name, "", "")
            if port and not (port.isascii() and port.isdigit()):
                return False
        return name in self._allowed or ("*" in self._allowed and bool(name))


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


def _as_in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
