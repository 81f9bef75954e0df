"""Someone at the dashboard: a tab, what it hears over its WebSockets, and everything that goes wrong in it."""

import json
import re
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, WebSocket

from tests.app.served import Api


class Visitor:
    """One tab. What the browser complains of is a failure of the test, unless the test has said that it will come."""

    def __init__(self, context: BrowserContext, api: Api) -> None:
        self.page: Page = context.new_page()
        self.api = api
        self.url = f"http://127.0.0.1:{api.port}"
        self.heard: list[str] = []
        self._faults: list[str] = []
        self._expected: list[str] = []
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self._faults.append(f"uncaught: {error}"))
        self.page.on("websocket", self._on_websocket)

    def enter(self, path: str = "/") -> Page:
        """Open the dashboard with the first key, at a path of it."""
        self.page.goto(f"{self.url}/#{path}")
        self.page.get_by_label("Key", exact=True).fill(self.api.key)
        self.page.get_by_role("button", name="Open").click()
        self.page.get_by_role("navigation").wait_for()
        return self.page

    def go(self, path: str) -> Page:
        """Go to another path of the dashboard."""
        self.page.evaluate("path => { location.hash = path }", path)
        return self.page

    def expect(self, *patterns: str) -> None:
        """Say what the browser will complain of: it writes every refusal to its console."""
        self._expected += patterns

    @property
    def faults(self) -> list[str]:
        """What went wrong, and was not said to come."""
        return [fault for fault in self._faults if not any(re.search(known, fault) for known in self._expected)]

    def plotted(self, title: str, trace: str = "training") -> dict[str, list[Any]]:
        """Return the x and y of a line of a plot, as it is drawn."""
        drawn: dict[str, list[Any]] = self.page.get_by_role("img", name=f"{title} by step").evaluate(
            "(plot, name) => { const one = (plot.data || []).find((line) => line.name === name);"
            " return one ? {x: [...one.x], y: [...one.y]} : {x: [], y: []}; }",
            trace,
        )
        return drawn

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") or "Content Security Policy" in message.text:
            self._faults.append(f"{message.type}: {message.text}")

    def _on_websocket(self, socket: WebSocket) -> None:
        def hear(payload: str | bytes) -> None:
            assert isinstance(payload, str)
            self.heard += [json.loads(line)["id"] for line in payload.split("\n")]

        socket.on("framereceived", hear)
