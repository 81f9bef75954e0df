"""The rows of a pickled list of lists of whole numbers as JSON. Nothing in a pickle is ever called or imported.

A pickle is a program, and what it can do to a machine it does through the globals that it names: this unpickler knows
none. What is left are lists, numbers and the like, which can take all memory: read it in a process with limits alone.
"""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from core.errors import InvalidInput

_WAY_OUT = "Write it as pickle.dump([[int(n) for n in row] for row in rows], file)."


class _Plain(pickle.Unpickler):
    """An unpickler without globals, persistent objects, buffers and extensions."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise InvalidInput(
            f"The pickle names {f'{module}.{name}'[:100]!r}, and none of its names is ever looked up: it may hold "
            f"nothing but lists of whole numbers. {_WAY_OUT}"
        )

    def persistent_load(self, _: Any) -> NoReturn:
        raise InvalidInput(f"The pickle refers to things outside of itself. {_WAY_OUT}")


def pickled_rows(path: Path) -> Iterator[bytes]:
    """Yield each inner list as a line of JSON. Raises InvalidInput for a damaged pickle, or one of anything else."""
    for number, row in enumerate(_outer_list(path), 1):
        if type(row) is not list or not all(type(token) is int for token in row):
            what = f"holds a {type(row).__name__}" if type(row) is not list else "holds something beside whole numbers"
            raise InvalidInput.at(("row", number), f"row {number} {what}, and is to be a list of token ids. {_WAY_OUT}")
        if any(token.bit_length() > 32 for token in row):
            raise InvalidInput.at(("row", number), f"row {number} holds a number that is no token id")
        yield json.dumps({"input_ids": row}).encode()


def _outer_list(path: Path) -> list[Any]:
    try:
        with path.open("rb") as stream:
            loaded = _Plain(stream).load()
            rest = stream.read(1)
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # a forged pickle makes the unpickler raise anything
        reason = str(error)[:200] or type(error).__name__
        raise InvalidInput(f"The pickle is damaged or cut off ({reason}). {_WAY_OUT}") from error
    if type(loaded) is not list or rest:
        what = "more than one object" if rest else f"a {type(loaded).__name__}"
        raise InvalidInput(f"The pickle holds {what}, and is to be a list of lists of whole numbers. {_WAY_OUT}")
    return loaded
