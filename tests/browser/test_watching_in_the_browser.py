"""The dashboard over time: keys, lost connections, steps that are run again, small screens, several jobs at once."""

import re

from playwright.sync_api import Browser, expect

from core import keys
from core.settings import Settings
from tests.app.served import Api, serving
from tests.app.watcher import log_of_record
from tests.browser.visitor import Visitor
from tests.services import wait_for


def test_a_wrong_key_is_called_wrong_and_a_right_one_stays_in_its_tab(visitor: Visitor, site: Api) -> None:
    visitor.expect("status of 401")
    page = visitor.page
    page.goto(visitor.url)
    field = page.get_by_label("Key", exact=True)
    expect(field).to_be_focused()
    for wrong, said in (("epochd_00000000_wrong", "unknown, revoked or expired"), ("schlüssel", "This is no key")):
        field.fill(wrong)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(said)
    field.fill(site.key)
    page.keyboard.press("Enter")
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No jobs yet")).to_be_visible()
    assert site.key not in page.content() + page.url
    with site.work.begin() as session:
        keys.revoke(session, site.key.split("_")[1])
    page.get_by_role("link", name="Datasets").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, revoked or expired")
    expect(field).to_be_visible()


def test_a_restarted_api_is_found_again_without_a_gap_or_a_repeat(browser: Browser, site_settings: Settings) -> None:
    context = browser.new_context()
    with serving(site_settings) as first:
        worker = first.worker()
        worker.tell(4)
        visitor = Visitor(context, first)
        visitor.expect(
            "ERR_CONNECTION_REFUSED", "WebSocket connection to", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"
        )
        page = visitor.enter(f"/jobs/{worker.job_id}")
        expect(page.locator("#connection")).to_have_text("Live")
        already = log_of_record(first, worker.job_id)[-1]
        worker.tell(2)
        wait_for(lambda: len(visitor.heard) == 2 or page.wait_for_timeout(20), what="the first events")
    expect(page.locator("#connection")).to_contain_text("Connection lost")
    with serving(site_settings, first.port) as second:
        worker.work = second.work
        worker.tell(4)
        expect(page.locator("#connection")).to_have_text("Live", timeout=20_000)
        worker.tell(2)
        log = log_of_record(second, worker.job_id, already)
        expect(page.locator(".part-run")).to_contain_text("step 6")
        wait_for(lambda: visitor.plotted("Loss")["x"] == [1, 2, 3, 4, 5, 6], what="the curve")
        assert visitor.heard == log
        worker.succeed(second.store)
        expect(page.locator(".part-state")).to_have_text("succeeded")
    assert visitor.faults == []
    context.close()


def test_steps_that_are_run_again_replace_those_before(visitor: Visitor, site: Api) -> None:
    worker = site.worker()
    worker.tell(8)
    visitor.enter(f"/jobs/{worker.job_id}")
    wait_for(lambda: visitor.plotted("Loss")["x"] == [1, 2, 3, 4], what="the curve")
    worker.requeue_and_claim()
    worker.batch = 4
    again = worker.make(2)
    for event in again:
        event.data["loss"] = 7.0
    worker.publish(again)
    worker.record(again)
    # The last step is not yet run again: what it said before stands.
    curve = [(1 + 1 / 2) / 2, (1 / 3 + 1 / 4) / 2, 7.0, (1 / 7 + 1 / 8) / 2]
    wait_for(lambda: visitor.plotted("Loss") == {"x": [1, 2, 3, 4], "y": curve}, what="the step that was run again")


def test_any_number_of_batches_is_a_bounded_number_of_points(visitor: Visitor) -> None:
    visitor.enter("/")
    drawn = visitor.page.evaluate(
        """async () => {
            const { Curves } = await import("/assets/curves.js");
            const curves = new Curves(600);
            for (let batch = 1; batch <= 100000; batch++) {
                const loss = batch === 50000 ? null : batch;
                curves.add({ batch, step: batch, loss, accuracy: 0.5, learning_rate: 1 });
            }
            const { step, loss, low, high } = curves.columns();
            return [step.length, step.at(-1), low[0], high.at(-1), loss.reduce((a, b) => a + b) / loss.length];
        }"""
    )
    assert 600 <= drawn[0] <= 1200
    assert drawn[1:4] == [100_000, 1, 100_000]
    assert abs(drawn[4] - 50_000) < 500


def test_jobs_are_found_chosen_and_compared(visitor: Visitor, site: Api) -> None:
    dataset = site.dataset()
    for name in ("slow", "fast"):
        worker = site.worker(dataset=dataset, name=name, tags={"team": "docs"})
        worker.tell(4)
        worker.succeed(site.store)
    for number in range(26):
        job = site.job(dataset=dataset, name=f"other {number}", tags={"team": "web"})["id"]
        site.http.post(f"/jobs/{job}/cancel")
    page = visitor.enter("/")
    expect(page.locator("tbody tr")).to_have_count(25)
    page.get_by_role("link", name="Older jobs").click()
    expect(page.locator("tbody tr")).to_have_count(3)
    page.get_by_label("Tag").fill("team:docs")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_label("Status").select_option("failed")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    page.get_by_label("Status").select_option("succeeded")
    page.get_by_label("Compare slow").check()
    page.get_by_label("Compare fast").check()
    page.get_by_role("link", name="Compare 2 jobs").click()
    expect(page.get_by_role("heading", name="Compare")).to_be_visible()
    for name in ("slow", "fast"):
        wait_for(lambda name=name: visitor.plotted("Accuracy", name)["x"] == [1, 2], what=f"the curve of {name}")
    page.get_by_role("link", name="Leave slow out").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Add a job").select_option(label="slow · succeeded")
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_small_screen_needs_no_sideways_scrolling_and_the_keyboard_reaches_everything(
    visitor: Visitor, site: Api
) -> None:
    worker = site.worker(name="a-name-without-any-place-to-break-it-" * 4, tags={"team": "docs"})
    worker.tell(4)
    worker.checkpoint(site.store, {"model.safetensors": b"x" * 1000})
    other = site.job(name="queued")["id"]
    page = visitor.page
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(visitor.url)
    expect(page.get_by_role("button", name="Open")).to_be_visible()
    assert _width(visitor) == 360
    visitor.enter("/")
    paths = ("/", f"/jobs/{worker.job_id}", f"/compare?jobs={worker.job_id},{other}", "/datasets", "/new", "/nowhere")
    for path in paths:
        visitor.go(path)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.get_by_text("Loading…")).to_have_count(0)
        assert _width(visitor) == 360, path
    visitor.go(f"/jobs/{worker.job_id}")
    # The view is there: nothing moves the focus any more.
    expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    page.get_by_role("link", name="epochd").focus()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent"))
        seen = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert seen != "none", reached[-1]
        if reached[-1] == "Cancel":
            break
    assert {"Jobs", "Pause", "Save now", "Cancel"} <= set(reached)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Cancel"))).to_be_visible()


def _width(visitor: Visitor) -> int:
    width: int = visitor.page.evaluate("document.documentElement.scrollWidth")
    return width
