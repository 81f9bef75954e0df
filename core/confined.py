"""Work on what strangers sent, in a process of its own with limits: there it may fail, hang or grow, and harms nobody.

`python -m core.confined MODULE:FUNCTION BYTES SECONDS` is that process: a request in on standard input, an answer out
on standard output. It knows no key, no database and no other setting of the installation, and dies with who asked.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import structlog
from pydantic import BaseModel

from core.errors import DataError, Fault, InvalidInput

_log = structlog.get_logger()

A = TypeVar("A", bound=BaseModel)

# What a process needs to start; nothing else of the environment is handed on, for it may hold secrets.
_HANDED_ON = ("PATH", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
# Each thread of these reserves memory: with one for each core of a large machine they would break the limit alone.
_FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "2"}
_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


class OverLimit(InvalidInput):
    """The work did not come to its end, for one of three reasons."""


class OutOfTime(OverLimit):
    """It took longer than it may."""


class OutOfMemory(OverLimit):
    """It needed more memory than it may take, or than there is."""


class Crashed(OverLimit):
    """It came to grief: `cause` is the signal that ended it, or its status."""

    def __init__(self, detail: str, cause: str) -> None:
        super().__init__(detail)
        self.cause = cause


def call(
    function: str,
    request: BaseModel,
    answer: type[A],
    *,
    what: str,
    seconds: float,
    memory: int,
    waits: bool = False,
    hears: int | None = None,
) -> A:
    """Run a function, named `module:function`, on a request and return its answer, which is a model of type `answer`.

    It may take so many bytes and seconds; seconds of computing alone where it `waits` for others. `hears` is the end of
    a pipe that it reads meanwhile. Raises the InvalidInput or the OSError that it raised, OverLimit where it did not
    come to its end; `what` names the work in that sentence.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "core.confined", function, str(memory), str(int(seconds) + 1)],
            input=request.model_dump_json().encode(),
            capture_output=True,
            timeout=None if waits else seconds,
            env={name: os.environ[name] for name in _HANDED_ON if name in os.environ} | _FEW_THREADS,
            check=False,
            pass_fds=() if hears is None else (hears,),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired as error:
        raise _out_of_time(what, seconds) from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        _log.warning("confined_work_failed", function=function, status=done.returncode, said=said)
        raise _failure(done.returncode, what, seconds, memory)
    told = json.loads(done.stdout)
    match told:
        case {"refused": refused}:
            faults = [Fault(tuple(fault["loc"]), fault["msg"]) for fault in refused["faults"]]
            raise InvalidInput(refused["detail"], faults)
        case {"errno": int(number), "said": said}:
            raise OSError(number, said)
        case {"out_of_memory": True}:
            raise _out_of_memory(what, memory)
    return answer.model_validate(told["answer"])


def _failure(status: int, what: str, seconds: float, memory: int) -> OverLimit:
    if status == -signal.SIGXCPU:
        return _out_of_time(what, seconds)
    if status == -signal.SIGKILL:  # the kernel, for want of memory
        return _out_of_memory(what, memory)
    cause = signal.Signals(-status).name if status < 0 else f"status {status}"
    # What runs out of memory does not always say so.
    return Crashed(f"{what} failed ({cause}), or needed more than {memory // 2**20} MiB, and was given up.", cause)


def _out_of_time(what: str, seconds: float) -> OutOfTime:
    return OutOfTime(f"{what} took longer than {seconds:.0f} s, and was given up.")


def _out_of_memory(what: str, memory: int) -> OutOfMemory:
    return OutOfMemory(f"{what} needed more than {memory // 2**20} MiB of memory, and was given up.")


def _confine(memory: int, seconds: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # Where memory is short this is what the kernel ends, not a trainer.
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(function: str) -> dict[str, Any]:
    try:
        module, _, name = function.partition(":")
        work = getattr(import_module(module), name)
        request = get_type_hints(work)["request"].model_validate_json(sys.stdin.buffer.read())
        answer: BaseModel = work(request)
    except InvalidInput as error:
        detail = f"{error.detail} {error.hint}" if isinstance(error, DataError) else error.detail
        return {"refused": {"detail": detail, "faults": [{"loc": f.loc, "msg": f.msg} for f in error.faults]}}
    except OSError as error:
        return {"errno": error.errno or 0, "said": error.strerror or str(error)}
    except MemoryError:
        return {"out_of_memory": True}
    return {"answer": answer.model_dump(mode="json")}


def _main(function: str, memory: str, seconds: str) -> None:
    _confine(int(memory), int(seconds))
    # Whatever a library prints is not the answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    told = _work(function)
    with os.fdopen(answers, "w", encoding="utf-8") as stream:
        json.dump(told, stream)


if __name__ == "__main__":
    _main(*sys.argv[1:])
