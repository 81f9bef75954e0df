"""The one place with HTTP statuses: every error becomes an RFC 9457 `application/problem+json`.

EpochdError
├── (those of core/errors.py)
├── Unauthenticated       no usable key
├── Forbidden             the key lacks a scope, or the browser's page is foreign
├── ForeignHost           the Host header names another server
├── NotJson               the body's content type is not JSON
├── SlowClient            a body that comes too slowly
├── TooMany               as many watch with this key as may
├── Unavailable           the database does not answer, or too many ask at once
└── DiskFull              there is no room for what was sent
"""

import errno
import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute
from uvicorn.protocols.utils import ClientDisconnected

from core.errors import Conflict, EpochdError, Fault, InvalidInput, NotFound, TooLarge, UnusableFile

_log = structlog.get_logger()

# What the database's drivers raise where it is away, restarting, or has no connection to spare.
DATABASE_OUTAGES = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)

# A body of nothing but faults must not be answered by one many times its size.
_MAX_FAULTS = 50
_MAX_CHARACTERS = 500


class Unauthenticated(EpochdError):
    """There is no key, or it is unknown, revoked or expired."""


class Forbidden(EpochdError):
    """The caller is known, or need not be, and may not do this."""


class ForeignHost(EpochdError):
    """The request was meant for another host than this server's."""


class NotJson(EpochdError):
    """The route reads JSON, and the body claims to be something else."""


class SlowClient(EpochdError):
    """The body came so slowly that nobody waits for the rest."""


class TooMany(EpochdError):
    """The key has as much open at once as one key may."""


class DiskFull(EpochdError):
    """The server has no room for what was sent."""


class Unavailable(EpochdError):
    """A part that the answer needs does not respond at the moment."""


_STATUSES: dict[type[EpochdError], HTTPStatus] = {
    ForeignHost: HTTPStatus.BAD_REQUEST,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    SlowClient: HTTPStatus.REQUEST_TIMEOUT,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotJson: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooMany: HTTPStatus.TOO_MANY_REQUESTS,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
}
_HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.REQUEST_TIMEOUT: {"Connection": "close"},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": "10"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "2"},
}


def problem(
    status: int,
    detail: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
    report_url: str | None = None,
) -> Response:
    """Return an answer of the one form that errors have."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail[:_MAX_CHARACTERS],
        "errors": [
            {"loc": [_short(part) for part in fault.loc], "msg": _short(fault.msg)} for fault in faults[:_MAX_FAULTS]
        ],
    }
    if report_url:
        document["report_url"] = report_url
    body = json.dumps(document, ensure_ascii=False).encode(errors="backslashreplace")
    return Response(body, status, headers, media_type="application/problem+json")


def answer(error: EpochdError) -> Response:
    """Return what a client is told of an error that epochd raised on purpose."""
    for kind in type(error).__mro__:
        if status := _STATUSES.get(kind):
            faults = error.faults if isinstance(error, InvalidInput) else ()
            report_url = error.report_url if isinstance(error, UnusableFile) else None
            return problem(status, error.detail, faults, _HEADERS.get(status), report_url)
    return internal(error)


def internal(error: Exception) -> Response:
    """Log an error that nobody foresaw and return an answer that tells nothing of the inside."""
    _log.error("request_failed", exc_info=error)
    detail = "Something went wrong inside the server. Its log has the reason under this answer's X-Request-Id."
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail)


def install(app: FastAPI) -> None:
    """Let the application answer every error as a problem."""
    app.add_exception_handler(EpochdError, _on_epochd_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(WebSocketRequestValidationError, _on_invalid_parameters)
    app.add_exception_handler(HTTPException, _on_routing_error)
    app.add_exception_handler(OSError, _on_os_error)
    for outage in DATABASE_OUTAGES:
        app.add_exception_handler(outage, _on_database_outage)


def _short(part: str | int) -> str | int:
    return part[:_MAX_CHARACTERS] if isinstance(part, str) else part


async def _on_epochd_error(_: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, EpochdError)
    return answer(error)


async def _on_invalid_parameters(_: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError | WebSocketRequestValidationError)
    faults = [Fault(tuple(fault["loc"]), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
    where = ", ".join(".".join(map(str, fault.loc)) for fault in faults[:3])
    return answer(InvalidInput(f"The request cannot be used: correct {where}.", faults))


async def _on_routing_error(connection: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            detail = "There is nothing at this address. `GET /docs` shows what there is."
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(_methods_here(connection))
            error.headers = {"Allow": allowed}
            detail = f"{connection.scope['method']} is not possible here, but {allowed} is. `GET /docs` shows how."
        case _:
            detail = error.detail
    return problem(error.status_code, detail, headers=dict(error.headers or {}))


def _methods_here(connection: HTTPConnection) -> list[str]:
    """Return every method of an address; the framework names those of the first route that has it."""

    def allowed(routes: Sequence[BaseRoute]) -> set[str]:
        found: set[str] = set()
        for route in routes:
            if inner := getattr(route, "original_router", None):
                found |= allowed(inner.routes)
            elif isinstance(route, APIRoute) and route.path_regex.match(connection.scope["path"]):
                found |= route.methods or set()
        return found

    return sorted(allowed(connection.app.routes))


async def _on_os_error(_: HTTPConnection, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return answer(DiskFull("The server's disk is full: nothing was stored. Make room on it and send this again."))
    if isinstance(error, ClientDisconnected):
        raise error
    return internal(error)


async def _on_database_outage(_: HTTPConnection, error: Exception) -> Response:
    _log.warning("database_unreachable", reason=str(error).splitlines()[0])
    return answer(Unavailable("The database does not answer at the moment. Try again in a few seconds."))
