"""`epochd demo`: everything that epochd does, once, on real text, in about two minutes."""

import json
import time
from pathlib import Path

from rich.text import Text

from cli.client import Client, Json
from cli.commands.jobs import post_job
from cli.commands.pull import fetch
from cli.demo_corpus import PROMPTS, demo_spec, write_corpus
from cli.demo_stack import local_stack
from cli.screen import drawing, out, safe, size
from cli.upload import push
from cli.watching import watch
from cli.with_transformers import PROGRAM, continue_prompt
from core.errors import EpochdError
from core.settings import load_settings

_WIDTH = 96


def demo() -> None:
    """Train a small GPT on Python's own documentation: corpus, job, live bars, checkpoint, text. Two minutes.

    Uses the stack that runs on EPOCHD_DATA_DIR, or starts one and stops it at the end.
    """
    started_at = time.monotonic()
    data_dir = load_settings().data_dir
    _heading("The stack")
    with local_stack(data_dir) as client:
        _say(f"epochd answers at {client.url}; its data lies in {data_dir}")
        folder = data_dir / "demo"
        folder.mkdir(exist_ok=True)
        dataset = _corpus(client, folder)
        job = _job(client, folder, dataset)
        _train(client, job)
        checkpoint = _checkpoint(client, folder, job)
        _continue(checkpoint)
        _curve(client, job)
        _by_hand(client, data_dir, folder, job)
        _say(f"\nThe demo took {time.monotonic() - started_at:.0f} s.")


def _corpus(client: Client, folder: Path) -> Json:
    _heading("The corpus")
    path = folder / "python-docs.jsonl"
    documents = write_corpus(path)
    _say(f"{path}: the prose of Python's own documentation, {documents} documents, {size(path.stat().st_size)}")
    dataset = push(client, path)
    _say(f"uploaded as {dataset['id']}")
    return dataset


def _job(client: Client, folder: Path, dataset: Json) -> Json:
    _heading("The job")
    spec = json.dumps(demo_spec(dataset["id"]), indent=2)
    (folder / "spec.json").write_text(spec + "\n")
    job = post_job(client, spec)
    training, config = job["spec"]["training"], job["spec"]["model"]["config"]
    _say(f"{folder / 'spec.json'} submitted as {job['id']}")
    _say(
        f"a {config['model_type']} of {job['plan']['parameters'] / 1e6:.1f} million parameters, with fresh weights "
        f"and a tokenizer of its own, {training['epochs']} epochs"
    )
    return job


def _train(client: Client, job: Json) -> None:
    _heading("Training, every batch as it happens")
    try:
        status = watch(client, job["id"])
    except KeyboardInterrupt:
        client.post(f"/jobs/{job['id']}/cancel")  # nobody waits for it any more
        raise
    if status != 0:
        raise EpochdError(f"The demo's job {job['id']} did not succeed. The lines above say why.")


def _checkpoint(client: Client, folder: Path, job: Json) -> Path:
    _heading("The last checkpoint")
    path = fetch(client, job["id"], "latest", folder / job["id"])
    for file in sorted(path.iterdir()):
        _say(f"  {size(file.stat().st_size):>9}  {path / file.name}")
    return path


def _continue(checkpoint: Path) -> None:
    _heading("Loaded with transformers alone, it continues a prompt")
    out.print(Text(PROGRAM, style="dim"), width=_width())
    text = safe(continue_prompt(checkpoint, PROMPTS[0]))
    out.print(Text(PROMPTS[0], style="bold green") + Text(text.removeprefix(PROMPTS[0])), width=_width())


def _curve(client: Client, job: Json) -> None:
    _heading("The loss")
    from cli.curve import POINTS, draw  # noqa: PLC0415 - a quarter of a second to import

    metrics = client.get(f"/jobs/{job['id']}/metrics", points=POINTS)
    drawing(draw({job["name"]: metrics}, "loss", width=_width(), colors=out.color_system is not None))


def _by_hand(client: Client, data_dir: Path, folder: Path, job: Json) -> None:
    _heading("The same by hand")
    curl = f'curl -H "Authorization: Bearer $(cat {data_dir / "key"})"'
    jobs = f"{client.url}/jobs"
    checkpoint = f"{jobs}/{job['id']}/checkpoints/latest"
    for comment, line in (
        ("the stack, in another terminal, where none runs", "epochd up"),
        ("a dataset", f"{curl} -F file=@{folder / 'python-docs.jsonl'} {client.url}/datasets"),
        ("a job", f"{curl} --json @{folder / 'spec.json'} {jobs}"),
        ("what happened", f'{curl} "{jobs}/{job["id"]}/events?limit=5"'),
        ("the curves", f'{curl} "{jobs}/{job["id"]}/metrics?format=csv"'),
        ("a checkpoint", f"{curl} {checkpoint}/archive | tar x"),
    ):
        out.print(Text(f"# {comment}", style="dim"))
        out.print(Text(line), soft_wrap=True)


def _width() -> int:
    return min(_WIDTH, out.width)


def _heading(text: str) -> None:
    out.print(Text(f"\n{text}", style="bold cyan"))


def _say(text: str) -> None:
    out.print(Text(safe(text)), soft_wrap=True)
