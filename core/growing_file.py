"""A file that is read while it is still written, by another process: the two ends of a pipe keep them in step."""

import os
import select
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from core.errors import InvalidInput

_MORE, _WHOLE = b".", b"!"
_HEARD_AT_ONCE = 2**16


class GivenUp(InvalidInput):
    """The file will never be whole: whoever wrote it has stopped."""


class Growth:
    """The writer's end. `hears` is the end that a reader, in a process of its own, takes over."""

    def __init__(self) -> None:
        self.hears, self._tells = os.pipe()
        os.set_blocking(self._tells, False)

    def more(self) -> None:
        """Tell the reader that more has been written."""
        self._tell(_MORE)

    def whole(self) -> None:
        """Tell the reader that all of it has been written."""
        os.set_blocking(self._tells, True)
        self._tell(_WHOLE)

    def end(self) -> None:
        """Tell no more. A reader that was not told of the whole gives up."""
        os.close(self._tells)

    def close(self) -> None:
        """Let go of the reader's end, too: when it has been taken over, or never will be."""
        os.close(self.hears)

    def _tell(self, word: bytes) -> None:
        with suppress(BlockingIOError):  # it has not even heard what it was told before
            os.write(self._tells, word)


class GrowingFile(RawIOBase):
    """The reader's end: a file whose reads wait for what is still to come. Raises GivenUp where nothing will."""

    def __init__(self, path: Path, hears: int) -> None:
        self._file, self._hears, self._whole = path.open("rb", buffering=0), hears, False
        self._poll = select.poll()
        self._poll.register(hears, select.POLLIN)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as may be, and return how many bytes came; 0 at the end of the whole file."""
        self._hear(wait=False)
        while not (count := self._file.readinto(buffer) or 0) and not self._whole:
            self._hear(wait=True)
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _hear(self, *, wait: bool) -> None:
        if self._whole or not self._poll.poll(None if wait else 0):
            return
        told = os.read(self._hears, _HEARD_AT_ONCE)
        if not told:
            raise GivenUp("The file was not sent to its end.")
        self._whole = told.endswith(_WHOLE)
