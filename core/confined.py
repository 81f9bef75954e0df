"""Work on what strangers sent, in a process of its own with limits: there it may fail, hang or grow, and harms nobody.

`python -m core.confined MODULE:FUNCTION BYTES SECONDS` is that process: a request in on standard input, an answer out
on standard output. It knows no key, no database and no other setting of the installation.
"""

import json
import os
import resource
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
_HANDED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
# Each thread of these reserves memory: with one for each core of a large machine they would break the limit alone.
_FEW_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "2"}


class OverLimit(InvalidInput):
    """The work did not end within its time or its memory."""


def call(function: str, request: BaseModel, answer: type[A], *, what: str, seconds: float, memory: int) -> A:
    """Run a function, named `module:function`, on a request and return its answer, which is a model of type `answer`.

    Raises the InvalidInput that it raised, OverLimit where it took more than so many seconds or bytes, or came to grief
    otherwise; `what` names the work in that sentence.
    """
    command = [sys.executable, "-P", "-m", "core.confined", function, str(memory), str(int(seconds) + 1)]
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ} | _FEW_THREADS
    try:
        done = subprocess.run(
            command,
            input=request.model_dump_json().encode(),
            capture_output=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OverLimit(f"{what} took longer than {seconds:.0f} s, and was given up.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        _log.warning("confined_work_failed", function=function, status=done.returncode, said=said)
        raise OverLimit(f"{what} failed, or needed more than {memory // 2**20} MiB of memory, and was given up.")
    told = json.loads(done.stdout)
    if refused := told.get("refused"):
        faults = [Fault(tuple(fault["loc"]), fault["msg"]) for fault in refused["faults"]]
        raise InvalidInput(refused["detail"], faults)
    return answer.model_validate(told["answer"])


def _confine(memory: int, seconds: int) -> None:
    if sys.platform == "linux":
        # Where memory is short this is what the kernel ends, not a trainer.
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(function: str) -> dict[str, Any]:
    module, _, name = function.partition(":")
    work = getattr(import_module(module), name)
    request = get_type_hints(work)["request"].model_validate_json(sys.stdin.buffer.read())
    try:
        answer: BaseModel = work(request)
    except InvalidInput as error:
        detail = f"{error.detail} {error.hint}" if isinstance(error, DataError) else error.detail
        return {"refused": {"detail": detail, "faults": [{"loc": f.loc, "msg": f.msg} for f in error.faults]}}
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
