"""Places between two steps where a process may die: named, so that tests can have it die at each of them.

`EPOCHD_FAILPOINT=NAME@FILE` kills the process with SIGKILL where it reaches that place and can remove the file: so it
happens once, however many processes are told. Without the variable a place is nothing at all.
"""

import os
import signal
from pathlib import Path

_VARIABLE = "EPOCHD_FAILPOINT"


def reach(name: str) -> None:
    """Die here, if that was asked for."""
    wanted, _, file = os.environ.get(_VARIABLE, "").partition("@")
    if wanted != name:
        return
    try:
        Path(file).unlink()
    except FileNotFoundError:
        return  # it has happened
    os.kill(os.getpid(), signal.SIGKILL)


def environment() -> dict[str, str]:
    """Return what a child process needs to be told of it."""
    return {_VARIABLE: os.environ[_VARIABLE]} if _VARIABLE in os.environ else {}
