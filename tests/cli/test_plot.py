"""`epochd plot`: curves in the terminal."""

import re

import pytest

from cli.curve import draw
from tests.app.served import Api
from tests.cli.conftest import Main


def test_a_curve_of_nothing_says_so() -> None:
    empty = {"step": [1], "loss": [None], "validation": []}

    assert draw({"job": empty}, "loss", width=80, colors=False) == "no loss is known"


def test_a_curve_has_its_ends_and_its_validation() -> None:
    metrics = {"step": [1, 50, 100], "loss": [8.0, 6.0, 5.0], "validation": [{"step": 100, "loss": 5.5}]}

    drawn = draw({"job": metrics}, "loss", width=80, colors=False)

    assert "8.0┤" in drawn
    assert "validation" in drawn
    assert re.search(r"\b1\b.*\b100\b", drawn.splitlines()[-1] or drawn.splitlines()[-2])


def test_jobs_of_one_name_are_drawn_as_two_in_a_pipe(on_api: Main, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    workers = [api.worker(name="docs") for _ in range(2)]
    for worker in workers:
        worker.tell(6)

    drawn = on_api("plot", *(worker.job_id for worker in workers), "--metric", "learning_rate")

    assert drawn.status == 0
    assert "learning rate by update" in drawn.out
    assert "* docs" in drawn.out
    assert f"o docs ({workers[1].job_id})" in drawn.out
    assert "\x1b" not in drawn.out
    assert max(map(len, drawn.out.splitlines())) == 90
    nothing = api.job(name="waits")["id"]
    assert on_api("plot", nothing).out == "no loss is known\n"
    assert on_api("plot", nothing, workers[0].job_id).err == "waits: no loss is known yet\n"
    assert on_api("plot", "job_of_nobody").status == 1
