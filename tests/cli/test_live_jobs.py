"""`epochd jobs`, `epochd watch` without a job, and what a shell offers: several jobs, whose workers are played."""

import io
import json
import re

import pytest
from rich.console import Console

from cli import client as http
from cli import jobs_view, live_jobs, patience, watching
from cli.client import Client, Json, Unanswered
from cli.jobs_view import JobLines, JobsTable
from cli.live_jobs import Look, looks
from core import jobs
from core.jobs import JobError
from tests.app.served import Api
from tests.cli.conftest import Main

ERROR = JobError("diverged", "The loss is no number.", "Lower training.learning_rate.")


def _client(api: Api) -> Client:
    return Client(f"http://127.0.0.1:{api.port}", api.key)


def _ids(jobs: list[Json]) -> list[str]:
    return [job["id"] for job in jobs]


def test_jobs_are_filtered_paged_and_told_as_json(on_api: Main, api: Api) -> None:
    dataset = api.dataset()
    made = [api.job(dataset=dataset, name=f"job {n}", tags={"n": str(n % 2)})["id"] for n in range(5)]
    api.http.post(f"/jobs/{made[0]}/cancel")

    first = on_api("jobs", "--limit", "2", "--json")
    assert _ids([json.loads(line) for line in first.out.splitlines()]) == made[:2:-1]
    assert json.loads(first.out.splitlines()[0]) == api.http.get(f"/jobs/{made[4]}").json()
    found = re.search(r"--cursor (\S+)", first.err)
    assert found
    rest = on_api("jobs", "--cursor", found[1])
    assert re.findall(r"^job_\w+", rest.out, re.MULTILINE) == made[2::-1]
    assert rest.err == ""
    assert re.findall(r"^job_\w+", on_api("jobs", "--status", "cancelled").out, re.MULTILINE) == made[:1]
    odd = on_api("jobs", "--status", "queued", "--tag", "n:1", "--json").out.splitlines()
    assert _ids([json.loads(line) for line in odd]) == [made[3], made[1]]


def test_more_than_a_page_of_the_api_is_read_to_the_limit(
    on_api: Main, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_MOST_A_PAGE", 2)
    dataset = api.dataset()
    made = [api.job(dataset=dataset)["id"] for _ in range(6)]
    shown = on_api("jobs", "--limit", "5")
    assert re.findall(r"^job_\w+", shown.out, re.MULTILINE) == made[:0:-1]
    assert made[1] in shown.err


def test_looks_tell_what_lives_and_what_has_ended_until_nothing_lives(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_jobs, "_PAUSE_SECONDS", 0.0)
    first, second = (api.worker(name=name) for name in ("first", "second"))
    waiting = [api.job(name=name)["id"] for name in ("third", "fourth")]
    first.tell(2)
    seen = looks(_client(api), lambda _: None)
    assert _ids(next(seen).live) == [first.job_id, second.job_id, *waiting]
    with api.work.begin() as session:
        jobs.fail(session, first.claim, ERROR)
    api.http.post(f"/jobs/{waiting[0]}/pause")
    look = next(seen)
    assert (_ids(look.live), _ids(look.ended)) == ([second.job_id, waiting[1], waiting[0]], [first.job_id])
    second.succeed(api.store)
    for job in waiting:
        api.http.post(f"/jobs/{job}/cancel")
    api.http.delete(f"/jobs/{waiting[0]}")
    look = next(seen)
    assert look.live == []
    assert {job["id"]: job["status"] for job in look.ended} == {second.job_id: "succeeded", waiting[1]: "cancelled"}
    assert list(seen) == []


def test_a_server_that_comes_back_is_looked_at_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_jobs, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.0)
    job = api.job()["id"]
    client, lost = _client(api), list[str]()
    seen = looks(client, lost.append)
    assert _ids(next(seen).live) == [job]
    get, broken = client.get, ["the connection broke"]

    def flaky(path: str, **query: object) -> Json:
        if broken:
            raise Unanswered(broken.pop())
        return get(path, **query)

    monkeypatch.setattr(client, "get", flaky)
    assert _ids(next(seen).live) == [job]
    assert lost == ["no answer"]
    monkeypatch.setattr(live_jobs, "_PATIENCE_SECONDS", -1.0)
    away = looks(Client("http://127.0.0.1:9", "a-key"), lost.append)
    with pytest.raises(Unanswered):
        next(away)


def test_the_end_of_all_jobs_is_the_exit_status(on_api: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (on_api("watch").status, on_api("watch").err) == (0, "No job is live.\n")
    ended = {end: {"id": end, "status": end} for end in ("succeeded", "cancelled", "failed")}
    view = type("Silent", (), {name: lambda *_: None for name in ("show", "connection_lost", "close")})
    monkeypatch.setattr(watching, "JobLines", view)
    for ends, status in (
        (["succeeded"], 0), (["succeeded", "cancelled"], 2), (["cancelled", "failed", "succeeded"], 1),
    ):  # fmt: skip
        told = [Look([{"id": "a"}], []), Look([], [ended[end] for end in ends])]
        monkeypatch.setattr(watching, "looks", lambda *_, told=told: iter(told))
        assert on_api("watch").status == status


def test_lines_and_json_are_of_what_has_changed(
    on_api: Main, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = api.worker()
    waiting = api.job(name="waits")["id"]
    [running, queued] = next(looks(_client(api), lambda _: None)).live
    running |= {"name": "run \x1b[2J"}
    at_work = running | {"progress": {"epoch": 2, "step": 30, "fraction": 0.5, "eta_seconds": 61.0}}
    told = [
        Look([running, queued], []),
        Look([at_work, queued], []),
        Look([at_work | {"latest": {"loss": 2.0}}, queued], []),
        Look([], [running | {"status": "failed", "error": ERROR.document()}]),
    ]
    monkeypatch.setattr(watching, "looks", lambda *_: iter(told))
    name = "run \N{REPLACEMENT CHARACTER}[2J"
    shown = on_api("watch")
    assert shown.status == 1
    assert shown.out.splitlines() == [
        f"{worker.job_id}  {name}  running",
        f"{waiting}  waits  queued (1)",
        f"{worker.job_id}  {name}  running  50%  epoch 2/3  step 30  1:01 left",
        f"{worker.job_id}  {name}  failed  diverged: {ERROR.message} {ERROR.hint}",
    ]
    as_json = [json.loads(line) for line in on_api("watch", "--json").out.splitlines()]
    assert as_json == [running, queued, at_work, told[2].live[0], *told[3].ended]
    JobLines().connection_lost("no answer")
    assert capsys.readouterr().out == "connection lost (no answer), trying again\n"


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_gets_a_table_that_is_gone_at_the_end(api: Api, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=width, height=20, highlight=False)
    monkeypatch.setattr(jobs_view, "out", terminal)
    worker = api.worker(name="a name that is far too long for the place that a table has for it in a terminal")
    look = next(looks(_client(api), lambda _: None))
    table = JobsTable()
    table.show(look)

    def shown() -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())

    lines = shown().splitlines()
    assert max(map(len, lines)) <= width
    assert ("TOKENS/S" in lines[0]) == (width == 120)
    assert re.search(rf"{worker.job_id}  a name.*…  running", "\n".join(lines)), "only the name is cut short"
    table.connection_lost("no answer")
    assert "connection lost (no answer), trying again" in screen.getvalue()
    table.show(Look([], [look.live[0] | {"status": "failed", "error": ERROR.document()}]))
    table.close()
    assert ERROR.hint in re.sub(r"\s+", " ", shown())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_offered_ids(on_api: Main, api: Api, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    job = api.job(name="docs")["id"]
    dataset = api.http.get("/datasets").json()["data"][0]["id"]
    monkeypatch.setenv("_EPOCHD_COMPLETE", f"complete_{shell}")

    def offered(words: str) -> str:
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        return on_api().out

    assert job in offered("epochd watch job_")
    assert dataset in offered("epochd datasets preview ds_")
    assert "succeeded" in offered("epochd jobs --status s")
    assert "job_" not in offered("epochd cancel ds_")
    monkeypatch.setenv("EPOCHD_API_KEY", "wrong")
    assert "job_" not in offered("epochd watch job_"), "nothing to offer, and no error in the middle of a line"
