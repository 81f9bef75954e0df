"""Work in a process of its own: its answers, its refusals, and its limits."""

import errno
import os
import time

import pytest
from pydantic import BaseModel

from core.confined import Crashed, OutOfMemory, OutOfTime, OverLimit, call
from core.errors import DataError, Fault, InvalidInput


class Wish(BaseModel):
    """What is asked of `work`."""

    what: str


class Told(BaseModel):
    """What it answers."""

    text: str


def work(request: Wish) -> Told:
    """Do what is asked."""
    print("chatter of a library", flush=True)
    match request.what:
        case "refuse":
            raise InvalidInput("No.", [Fault(("line", 3), "is wrong")])
        case "cannot train":
            raise DataError("No row.", "Give rows.")
        case "hang":
            time.sleep(60)
        case "grow":
            bytearray(2**31)
        case "break":
            raise ZeroDivisionError
        case "fill the disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        case "die":
            os.abort()
    return Told(text=",".join(sorted(os.environ)) if request.what == "environment" else request.what)


def _call(what: str, *, seconds: float = 30.0, memory: int = 2**30) -> str:
    function = "tests.core.test_confined:work"
    return call(function, Wish(what=what), Told, what="The work", seconds=seconds, memory=memory).text


@pytest.fixture(autouse=True)
def _tests_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.getcwd())


def test_an_answer_comes_back_and_a_refusal_with_its_places() -> None:
    assert _call("道 \ud7ff") == "道 \ud7ff"
    with pytest.raises(InvalidInput, match=r"^No\.$") as refused:
        _call("refuse")
    assert refused.value.faults == [Fault(("line", 3), "is wrong")]
    with pytest.raises(InvalidInput, match=r"^No row\. Give rows\.$"):
        _call("cannot train")


@pytest.mark.parametrize(
    ("what", "seconds", "kind", "said"),
    [
        ("hang", 3.0, OutOfTime, "The work took longer than 3 s"),
        ("grow", 30.0, OutOfMemory, "The work needed more than 1024 MiB"),
        ("break", 30.0, Crashed, r"The work failed \(status 1\)"),
        ("die", 30.0, Crashed, r"The work failed \(SIGABRT\)"),
    ],
)
def test_nothing_it_does_gets_out(what: str, seconds: float, kind: type[OverLimit], said: str) -> None:
    with pytest.raises(kind, match=said):
        _call(what, seconds=seconds)


def test_a_full_disk_is_told_as_one() -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        _call("fill the disk")
    assert caught.value.errno == errno.ENOSPC


def test_it_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    known = set(_call("environment").split(","))
    assert "PATH" in known
    assert not known & {"EPOCHD_DATABASE_URL", "HF_TOKEN", "HOME"}
