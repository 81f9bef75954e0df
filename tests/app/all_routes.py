"""Every route that an application serves, found in the application itself: a new one cannot be forgotten."""

import re

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute

WEBSOCKET = "WEBSOCKET"


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Return every method and path template; WEBSOCKET stands for the method of a stream."""

    def flat(found: list[BaseRoute]) -> list[BaseRoute]:
        routes: list[BaseRoute] = []
        for route in found:
            inner = getattr(route, "original_router", None)
            routes += flat(inner.routes) if inner else [route]
        return routes

    served = []
    for route in flat(app.routes):
        if isinstance(route, APIRoute):
            served += [(method, route.path) for method in sorted(route.methods or ())]
        elif isinstance(route, APIWebSocketRoute):
            served.append((WEBSOCKET, route.path))
    assert len(served) > 30
    return served


def parameters(path: str) -> list[str]:
    """Return the names of a path template's parameters."""
    return re.findall(r"{(\w+)}", path)
