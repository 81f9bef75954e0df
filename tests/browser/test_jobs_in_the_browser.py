"""The dashboard with real clicks: from a file on the disk to a checkpoint on the disk, and all that is between."""

import hashlib
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from core import jobs
from core.jobs import JobError
from core.tokens.vocabulary import of_bytes
from tests.app.played_worker import PlayedWorker
from tests.app.served import Api
from tests.browser.visitor import Visitor
from tests.services import wait_for

TEXT = "\n\n".join(f"A paragraph of some words, number {n}." for n in range(60))
WEIGHTS = bytes(range(256)) * 400


def test_from_a_file_to_a_checkpoint(visitor: Visitor, site: Api, tmp_path: Path) -> None:
    page = visitor.enter("/")
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.get_by_role("link", name="New job").click()
    (tmp_path / "corpus.txt").write_text(TEXT)
    page.locator("#upload").set_input_files(tmp_path / "corpus.txt")
    expect(page.get_by_text("corpus.txt: 60 rows.")).to_be_visible()
    page.get_by_label("name", exact=True).fill("first")
    page.get_by_label("epochs", exact=True).fill("2")
    page.get_by_label("learning_rate", exact=True).fill("1e-3")
    page.get_by_role("button", name="Show the plan").click()
    plan = page.get_by_role("region", name="Plan")
    for said in ("Parameters", "first update (1)", "Memory, on the cpu", "Disk", "Exact: every token was counted."):
        expect(plan).to_contain_text(said)
    assert site.http.get("/jobs").json()["data"] == []
    page.get_by_role("button", name="Start this job").click()
    expect(page.get_by_role("heading", name="first", level=1)).to_be_visible()
    (job,) = site.http.get("/jobs").json()["data"]
    assert (job["spec"]["training"]["epochs"], job["spec"]["training"]["learning_rate"]) == (2, 0.001)
    assert job["spec"]["training"]["batch_size"] == 16

    worker = PlayedWorker(site.work, job["id"])
    expect(page.locator(".part-state")).to_have_text("running")
    worker.tell(6)
    worker.event("sample", epoch=1, prompt="A paragraph", text=" of <b>words</b>")
    worker.event(
        "epoch", epoch=1, step=3, loss=0.4, accuracy=0.5, validation_loss=0.7, validation_accuracy=0.4, perplexity=2.0,
        seconds=3.0,
    )  # fmt: skip
    row = worker.checkpoint(site.store, {"model.safetensors": WEIGHTS, "config.json": b"{}"})
    worker.event("checkpoint", epoch=1, step=3, bytes=row.bytes, sha256=row.manifest_sha256, link="")
    expect(page.locator(".part-run")).to_contain_text("step 3")
    expect(page.locator(".part-samples")).to_contain_text("A paragraph of <b>words</b>")
    expect(page.locator(".part-epochs")).to_contain_text("0.700")
    # Two batches make an update, and a point.
    wait_for(lambda: visitor.plotted("Loss")["x"] == [1, 2, 3], what="the curve")
    assert visitor.plotted("Loss")["y"][0] == (1 + 1 / 2) / 2
    wait_for(lambda: visitor.plotted("Loss", "validation") == {"x": [3], "y": [0.7]}, what="its validation")

    expect(page.locator(".part-checkpoints")).to_contain_text(hashlib.sha256(WEIGHTS).hexdigest())
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("^Download model.safetensors")).click()
    assert download.value.suggested_filename == "model.safetensors"
    assert download.value.path().read_bytes() == WEIGHTS
    assert actions(visitor) == ["pause", "save", "cancel"]
    worker.succeed(site.store)
    expect(page.locator(".part-state")).to_have_text("succeeded")
    wait_for(lambda: actions(visitor) == ["delete"], what="no more than a deletion to ask for")


def actions(visitor: Visitor) -> list[str]:
    """Return what can be asked of the job that is shown."""
    found: list[str] = visitor.page.locator("[data-action]").evaluate_all("all => all.map(one => one.dataset.action)")
    return found


def test_what_is_wrong_with_a_form_stands_at_its_field(visitor: Visitor, site: Api) -> None:
    visitor.expect("status of 422")
    dataset = site.dataset()
    page = visitor.enter(f"/new?dataset={dataset}")
    page.get_by_label("epochs", exact=True).fill("0")
    page.get_by_label("learning_rate", exact=True).fill("fast")
    show = page.get_by_role("button", name="Show the plan")
    show.click()
    epochs, rate = page.get_by_label("epochs", exact=True), page.get_by_label("learning_rate", exact=True)
    expect(epochs).to_have_attribute("aria-invalid", "true")
    expect(epochs).to_have_accessible_description(re.compile("greater than or equal to 1"))
    expect(rate).to_have_accessible_description(re.compile("valid number"))
    expect(epochs).to_be_focused()
    epochs.fill("1")
    rate.fill("0.1")
    sequence, model = page.locator("[data-loc=sequence]"), page.locator("[data-loc=model]")
    sequence.locator("summary").click()
    page.get_by_label("min_length", exact=True).fill("999")
    sequence.locator("summary").click()
    show.click()
    expect(sequence).to_contain_text("min_length (999) must not exceed max_length (256)")
    expect(sequence).to_have_attribute("open", "")
    page.get_by_label("min_length", exact=True).fill("9")
    model.locator("summary").first.click()
    page.locator("#choice-model").select_option("earlier model")
    page.get_by_label("job", exact=True).fill("job_x")
    show.click()
    expect(model).to_contain_text("There is no job job_x")


def test_pause_resume_cancel_and_delete(visitor: Visitor, site: Api) -> None:
    worker = site.worker(name="run")
    page = visitor.enter(f"/jobs/{worker.job_id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".part-state")).to_have_text("pausing")
    assert actions(visitor) == ["resume", "cancel"]
    with site.work.begin() as session:
        jobs.stop(session, worker.claim, "drain")
    expect(page.locator(".part-state")).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".part-state")).to_have_text("queued #1")
    expect(page.locator("#announcement")).to_contain_text("queued")

    page.get_by_role("button", name="Cancel").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert site.http.get(f"/jobs/{worker.job_id}").json()["status"] == "queued"
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".part-state")).to_have_text("cancelled")
    assert actions(visitor) == ["retry", "delete"]
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    assert site.http.get("/jobs").json()["data"] == []


def test_a_failed_job_says_why_and_what_to_do_and_can_be_retried(visitor: Visitor, site: Api) -> None:
    worker = site.worker(name="too much")
    page = visitor.enter(f"/jobs/{worker.job_id}")
    worker.event("warning", code="batch_split_out_of_memory", message="A batch did not fit and was done in halves.")
    expect(page.locator(".part-warnings")).to_contain_text("done in halves")
    with site.work.begin() as session:
        jobs.fail(
            session, worker.claim, JobError("out_of_memory", "One row does not fit.", "Lower sequence.max_length.")
        )
    expect(page.locator(".part-failure")).to_contain_text("One row does not fit.")
    expect(page.locator(".part-failure")).to_contain_text("Lower sequence.max_length.")
    expect(page.locator(".part-failure")).to_contain_text("out_of_memory")
    worker.write(900, "Traceback\n<b>the last line</b>")
    page.get_by_role("heading", name="Trainer output").click()
    expect(page.locator(".part-output")).to_contain_text("Attempt 1, without its first 898 lines")
    expect(page.locator(".part-output pre")).to_have_text("Traceback\n<b>the last line</b>")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".part-state")).to_have_text("queued #1")
    expect(page.locator(".part-failure")).to_be_empty()
    # The stream has ended with the failure, and is followed again.
    again = PlayedWorker(site.work, worker.job_id)
    again.tell(2)
    expect(page.locator(".part-run")).to_contain_text("step 1")


def test_datasets_and_tokenizers_come_and_go(visitor: Visitor, site: Api, tmp_path: Path) -> None:
    visitor.expect("status of 409")
    needed = site.job(dataset=site.dataset(TEXT, filename="needed.txt"))["id"]
    site.dataset("a\n\nb", filename="superfluous.txt")
    (tmp_path / "tokenizer.json").write_text(of_bytes().to_str())
    page = visitor.enter("/datasets")
    page.locator("#upload-tokenizer").set_input_files(tmp_path / "tokenizer.json")
    expect(page.get_by_text("tokenizer.json: 257 tokens.")).to_be_visible()
    visitor.go("/new")
    tokenizer = page.locator("[data-loc=tokenizer]")
    tokenizer.locator("summary").first.click()
    tokenizer.get_by_label("kind").select_option("uploaded tokenizer")
    expect(tokenizer.get_by_label("upload", exact=True)).to_contain_text("tokenizer.json · 257 tokens")

    visitor.go("/datasets")

    def delete(name: str) -> None:
        page.get_by_role("button", name=f"Delete {name}").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    delete("needed.txt")
    expect(page.get_by_role("alert")).to_contain_text(needed)
    delete("superfluous.txt")
    expect(page.locator("main").get_by_text("superfluous.txt")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    delete("tokenizer.json")
    expect(page.get_by_text("None is needed: a job learns its own")).to_be_visible()
    left = {row["filename"] for row in site.http.get("/datasets").json()["data"]}
    assert ("needed.txt" in left, "superfluous.txt" in left) == (True, False)


@pytest.mark.parametrize("unanswered", ["**/jobs?status=*", "**/jobs?limit=*"])
def test_who_leaves_before_the_lists_have_come_is_told_of_no_error(visitor: Visitor, unanswered: str) -> None:
    page = visitor.enter("/datasets")
    expect(page.get_by_role("heading", name="No datasets yet")).to_be_visible()
    page.route(unanswered, lambda _: None)
    with page.expect_request(unanswered):
        visitor.go("/")
    visitor.go("/new")
    expect(page.get_by_role("heading", name="New job")).to_be_visible()


def test_what_is_uploaded_is_reported_though_the_list_does_not_come(visitor: Visitor, tmp_path: Path) -> None:
    visitor.expect("net::ERR_FAILED")
    (tmp_path / "tokenizer.json").write_text(of_bytes().to_str())
    page = visitor.enter("/datasets")
    page.route("**/tokenizers?limit=50", lambda route: route.abort())
    page.locator("#upload-tokenizer").set_input_files(tmp_path / "tokenizer.json")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.get_by_text("tokenizer.json: 257 tokens.")).to_be_visible()
    page.unroute_all()
    page.route("**/tokenizers?limit=50", lambda _: None)
    with page.expect_request("**/tokenizers?limit=50"):
        page.locator("#upload-tokenizer").set_input_files(tmp_path / "tokenizer.json")
    visitor.go("/new")
    expect(page.get_by_role("heading", name="New job")).to_be_visible()


def test_what_is_called_like_markup_is_shown_as_it_is_called(visitor: Visitor, site: Api) -> None:
    evil = "<script>window.hit=1</script><img src=x onerror=window.hit=1>"
    worker = site.worker(name=evil, tags={"<b>": "<i>"}, samples={"prompts": [evil]})
    worker.tell(2)
    worker.event("sample", epoch=1, prompt=evil, text=evil)
    worker.event("warning", code="x", message=evil)
    other = site.job(name=f"{evil} 2")["id"]
    site.dataset("a\n\nb", filename=f"{evil.replace('/', '')}.txt")
    page = visitor.enter("/")
    expect(page.get_by_role("link", name=evil).first).to_be_visible()
    expect(page.locator(".card").first).to_contain_text("loss – · epoch – of 3 · started")
    comparison = f"/compare?jobs={worker.job_id},{other}"
    views = {f"/jobs/{worker.job_id}": evil, "/datasets": "Datasets", "/new": "New job", comparison: "Compare"}
    for path, title in views.items():
        visitor.go(path)
        expect(page.get_by_role("heading", level=1)).to_have_text(title)
        expect(page.locator("main").get_by_text("window.hit").first).to_be_attached()
    plot = page.get_by_role("img", name="Loss by step", exact=True)
    wait_for(lambda: plot.evaluate("plot => plot.data?.length") == 2, what="the plot")
    box = plot.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.evaluate("[window.hit, document.querySelectorAll('main script, main img').length]") == [None, 0]
