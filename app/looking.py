"""Looking through a file, perhaps while it still comes in; what is wrong with a refused one can be downloaded."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.to_thread
from fastapi.concurrency import run_in_threadpool

from app.resources import Resources
from core import refusals
from core.dataset_look import MAX_FAULTS
from core.errors import InvalidInput, UnusableFile
from core.growing_file import Growth
from core.inspection import SMALL_BYTES, Order, Outcome, look_through


def look(resources: Resources, owner_id: str, order: Order) -> Outcome:
    """Return what was found in a usable file.

    Raises InvalidInput with the first faults for one that is not usable, UnusableFile where there are more of them.
    """
    try:
        return look_through(order)
    except InvalidInput as error:
        if len(error.faults) < MAX_FAULTS or order.findings is None:
            raise
        url = f"/refusals/{refusals.add(resources.store, owner_id, order.findings)}"
        raise UnusableFile(f"{error.detail} `GET {url}` has all that was found.", error.faults, url) from error


class EarlyLook:
    """A look through a file that begins while it comes in, where that can be done and a place is free for it.

    A client that is slow holds its place for long, but none of those that whole files wait for.
    """

    def __init__(self, resources: Resources, owner_id: str, order: Callable[[Path, str], Order]) -> None:
        self._resources, self._owner_id, self._order = resources, owner_id, order
        self._growth: Growth | None = None
        self._task: asyncio.Task[Outcome] | None = None
        self._is_open = True

    @property
    def has_begun(self) -> bool:
        """Whether there is an outcome to wait for."""
        return self._task is not None

    def grown(self, path: Path, filename: str, size: int) -> None:
        """Hear that so many bytes of the file are here. Raises what the look raises, as soon as it does."""
        if self._task and self._growth:
            if self._task.done():
                self._task.result()
            self._growth.more()
        elif self._is_open and size > SMALL_BYTES:
            self._begin(self._order(path, filename))

    async def outcome(self) -> Outcome:
        """Return what was found in the file, which is whole now."""
        assert self._task
        assert self._growth
        await run_in_threadpool(self._growth.whole)
        return await self._task

    def _begin(self, order: Order) -> None:
        self._is_open = False
        places = self._resources.early_looks
        if not order.format.is_text or places.available_tokens < 1:
            return
        places.acquire_on_behalf_of_nowait(self)
        self._growth = Growth()
        order = order.model_copy(update={"hears": self._growth.hears})
        own = anyio.CapacityLimiter(1)
        self._task = asyncio.create_task(
            anyio.to_thread.run_sync(look, self._resources, self._owner_id, order, limiter=own)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if not self._task or not self._growth:
            return
        try:
            self._growth.end()
            with suppress(Exception):  # whoever needed the outcome has it
                await self._task
        finally:
            self._growth.close()
            self._resources.early_looks.release_on_behalf_of(self)
