"""A part that cannot live is started ever more rarely, and its last words are heard."""

import os
import sys
import time
from pathlib import Path

import pytest

from cli.part import Part
from tests.services import wait_for


def _part(program: str, tmp_path: Path) -> Part:
    command = [sys.executable, "-c", program]
    return Part("The part", command, log=tmp_path / "logs" / "part.log", environment=os.environ, data_dir=tmp_path)


def test_last_words_and_a_growing_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    part = _part("raise SystemExit('I cannot live like this')", tmp_path)
    said: list[str] = []
    part.start()

    for pause in ("1 s", "2 s", "4 s"):
        wait_for(part.ended, what="the end of the part")
        part.tend(said.append)
        assert f"The part died (exit status 1) and is started again in {pause}" in said[-2]
        assert said[-1] == "  | I cannot live like this"
        part.tend(said.append)
        assert part.ended(), "it was started before its pause was over"
        now[0] += 4.5
        part.tend(said.append)

    part.kill()


def test_a_part_that_lived_is_started_again_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = _part("import time; time.sleep(60)", tmp_path)
    said: list[str] = []
    part.start()
    part.terminate()
    wait_for(part.ended, what="the end of the part")
    monkeypatch.setattr("cli.part._AT_ONCE_SECONDS", 0.0)

    part.tend(said.append)
    part.tend(said.append)

    assert said == [f"The part died (killed by SIGTERM) and is started again now. Its log: {part.log}"]
    assert not part.ended()
    part.kill()
    assert part.ended()
