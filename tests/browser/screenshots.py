"""`python -m tests.browser.screenshots`: pictures of every view for the documentation, of jobs that are played."""

import math
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from core import jobs
from core.database import connect, migrate
from core.jobs import JobError
from core.settings import Settings
from core.tokens.vocabulary import of_bytes
from tests.app.played_worker import PlayedWorker
from tests.app.served import Api, serving
from tests.browser.chromium import chromium
from tests.browser.visitor import Visitor
from tests.services import redis_server

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
WIDE, SMALL = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
TALLEST = 1400
PROMPTS = ["The import statement", "A function is"]
WRITTEN = {
    1: [" is the the module of name, and a value in the", " the of a object to be the function name"],
    2: [" is used in a module that the name is bound to,", " an object that is called with the arguments of"],
    3: [" finds a module, and then binds a name to it", " defined by a def statement, and can be called with"],
}
CORPUS = "\n\n".join(f"Paragraph {n} of a small corpus about modules, functions and names." for n in range(6861))
STEPS, EPOCHS = 1290, 3


def numbers(batch: int, rate: float, noise: random.Random) -> dict[str, float]:
    """Return the numbers of a batch of a plausible run."""
    warm = min(1.0, batch / 65)
    fall = math.exp(-batch * rate / 0.42)
    loss = 3.35 + 4.4 * fall + noise.gauss(0, 0.07)
    cosine = 0.5 * (1 + math.cos(math.pi * batch / STEPS))
    return {
        "loss": loss,
        "accuracy": max(0.0, 0.385 - 0.37 * fall + noise.gauss(0, 0.006)),
        "learning_rate": rate * warm * cosine,
        "grad_norm": 0.7 + fall + noise.random() / 5,
        "tokens_per_second": 3600 + noise.gauss(0, 60),
    }


def train(site: Api, worker: PlayedWorker, upto: int, rate: float) -> None:
    """Play a run up to a batch, with what comes at the end of each epoch."""
    noise = random.Random(rate)
    for epoch in range(1, EPOCHS + 1):
        end = STEPS * epoch // EPOCHS
        made = worker.make(min(upto, end) - worker.batch)
        for event in made:
            event.data.update(numbers(event.data["batch"], rate, noise), step=event.data["batch"], epoch=epoch)
        worker.record(made)
        if upto >= end:
            close(site, worker, epoch, made[-1].data)
        if upto <= end:
            break
    show(site, worker, made[-1].data)


def close(site: Api, worker: PlayedWorker, epoch: int, last: dict[str, Any]) -> None:
    """Play the end of an epoch."""
    loss = last["loss"] + 0.16
    for prompt, text in zip(PROMPTS, WRITTEN[epoch], strict=True):
        worker.event("sample", epoch=epoch, prompt=prompt, text=text)
    validation = {
        "validation_loss": loss,
        "validation_accuracy": last["accuracy"] - 0.012,
        "perplexity": math.exp(loss),
    }
    worker.event(
        "epoch", epoch=epoch, step=last["step"], loss=last["loss"] + 0.4, accuracy=last["accuracy"] - 0.05,
        seconds=88.0 + epoch, **validation,
    )  # fmt: skip
    files = {"config.json": b"{}" * 330, "model.safetensors": random.Random(epoch).randbytes(900_000)}
    files |= {"tokenizer.json": b"{}" * 60_000, "generation_config.json": b"{}" * 60}
    row = worker.checkpoint(
        site.store,
        files,
        epoch=epoch,
        step=last["step"],
        loss=last["loss"],
        accuracy=last["accuracy"],
        validation_loss=loss,
    )
    worker.event("checkpoint", epoch=epoch, step=row.step, bytes=row.bytes, sha256=row.manifest_sha256, link="")


def show(site: Api, worker: PlayedWorker, last: dict[str, Any]) -> None:
    """Play what a worker keeps in a job's row."""
    plan = site.http.get(f"/jobs/{worker.job_id}").json()["plan"]
    plan |= {"parameters": 4_240_896, "batches_per_epoch": STEPS // EPOCHS, "steps": STEPS, "tokens_per_epoch": 320_117}
    progress = {name: last[name] for name in ("epoch", "step", "batch", "tokens_per_second")}
    progress |= {"fraction": last["step"] / STEPS, "eta_seconds": (STEPS - last["step"]) * 0.21}
    latest = {name: last[name] for name in ("loss", "accuracy", "learning_rate", "grad_norm")}
    latest["validation_loss"] = last["loss"] + 0.16 if last["step"] > STEPS // EPOCHS else None
    with site.work.begin() as session:
        jobs.record(session, worker.claim, [], plan=plan, progress=progress, latest=latest)


def spec(rate: float, name: str, dataset: str, **more: Any) -> dict[str, Any]:
    """Return a job's spec."""
    return {
        "name": name,
        "dataset": dataset,
        "tags": {"team": "docs"},
        "training": {"epochs": EPOCHS, "learning_rate": rate, "lr_scheduler": "cosine", "warmup_ratio": 0.05},
        "samples": {"prompts": PROMPTS},
        **more,
    }


def submit(site: Api, asked: dict[str, Any]) -> str:
    """Submit a job and return its id."""
    id_: str = site.http.post("/jobs", json=asked).json()["id"]
    return id_


def play(site: Api) -> dict[str, str]:
    """Play an installation's day and return the ids of its jobs by name."""
    dataset = site.dataset(CORPUS, filename="python-docs.txt")
    ids = {}
    for name, rate in (("docs-gpt lr 3e-4", 3e-4), ("docs-gpt lr 2e-3", 2e-3)):
        worker = PlayedWorker(site.work, submit(site, spec(rate, name, dataset)))
        train(site, worker, STEPS, rate)
        with site.work.begin() as session:
            jobs.succeed(session, worker.claim, STEPS)
        ids[name] = worker.job_id
    too_fast = spec(0.3, "docs-gpt far too fast", dataset, tags={"team": "docs", "try": "limits"})
    worker = PlayedWorker(site.work, submit(site, too_fast))
    train(site, worker, 40, 0.02)
    with site.work.begin() as session:
        hint = "Lower training.learning_rate, or warm up for longer (training.warmup_ratio); then submit the job again."
        message = "The loss or its gradient was not finite in 5 windows in a row."
        jobs.fail(session, worker.claim, JobError("diverged", message, hint))
    ids["failed"] = worker.job_id
    worker = PlayedWorker(site.work, submit(site, spec(1e-3, "docs-gpt", dataset)))
    worker.event(
        "warning", code="batch_split_out_of_memory", message="A batch did not fit and was redone in two halves."
    )
    train(site, worker, 1010, 1e-3)
    ids["running"] = worker.job_id
    ids["queued"] = submit(site, spec(5e-4, "docs-gpt lr 5e-4", dataset))
    made = of_bytes().to_str().encode()
    site.http.post("/tokenizers", params={"filename": "tokenizer.json"}, content=made).raise_for_status()
    return ids


def pictures(visitor: Visitor, ids: dict[str, str]) -> dict[str, Callable[[], Page]]:
    """Return how each view is brought on the screen."""
    page = visitor.page

    def ready(path: str, text: str) -> Page:
        visitor.go(path)
        page.reload()
        page.get_by_text(text).first.wait_for()
        page.get_by_text("Loading…").wait_for(state="detached")
        for plot in page.locator(".plot").all():
            plot.locator(".main-svg").first.wait_for()
        return page

    def planned() -> Page:
        ready("/new", "New job")
        page.get_by_label("name", exact=True).fill("docs-gpt")
        page.get_by_label("learning_rate", exact=True).fill("1e-3")
        page.get_by_role("button", name="Show the plan").click()
        page.get_by_role("button", name="Start this job").wait_for()
        return page

    compared = ",".join(ids[name] for name in ("docs-gpt lr 3e-4", "docs-gpt lr 2e-3", "running"))
    return {
        "jobs": lambda: ready("/", "History"),
        "job": lambda: ready(f"/jobs/{ids['running']}", "Samples"),
        "failed": lambda: ready(f"/jobs/{ids['failed']}", "was not finite"),
        "compare": lambda: ready(f"/compare?jobs={compared}", "Leave out"),
        "datasets": lambda: ready("/datasets", "python-docs.txt"),
        "new": planned,
    }


def main() -> None:
    """Take every picture: wide and light, wide and dark, small and light."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, redis_server() as redis, chromium() as browser:
        settings = Settings(data_dir=Path(folder), redis_url=redis.url)
        engine = connect(settings.database)
        migrate(engine)
        engine.dispose()
        with serving(settings) as site:
            for scheme in ("light", "dark"):
                for size, viewport in (("wide", WIDE), ("small", SMALL)):
                    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
                    visitor = Visitor(context, site)
                    visitor.page.goto(visitor.url)
                    if scheme == "light" and size == "wide":
                        _take(visitor.page, "key", scheme, size)
                        visitor.enter("/")
                        visitor.page.get_by_text("No jobs yet").wait_for()
                        _take(visitor.page, "empty", scheme, size)
                        ids = play(site)
                    else:
                        visitor.enter("/")
                    for name, bring in pictures(visitor, ids).items():
                        _take(bring(), name, scheme, size)
                    assert visitor.faults == [], visitor.faults
                    context.close()
    print(f"{len(list(FOLDER.iterdir()))} pictures in {FOLDER}")


def _take(page: Page, name: str, scheme: str, size: str) -> None:
    page.mouse.move(0, 0)
    height = int(page.evaluate("document.documentElement.scrollHeight"))
    if size == "wide" and name != "new":
        page.set_viewport_size(WIDE | {"height": max(420, min(height, TALLEST))})
    page.wait_for_timeout(600)  # plots are drawn a moment after the page
    path = FOLDER / f"{name}-{size}-{scheme}.png"
    page.screenshot(path=path)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    main()
