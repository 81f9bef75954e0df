"""How fast text becomes tokens on disk, beside `datasets.map(batched=True)` with the same tokenizer.

    python -m benchmarks.data_preparation [--size-mb 64] [--runs 5]

Each measurement is a process of its own, and the two take turns. The text is the source of Python's standard library.
Neither side's first pass over the file is counted: at its upload the service has looked through it, and
`datasets.load_dataset` has made it into Arrow. Then once more by the service, as a second job on the same dataset.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.shapes import MAX_LENGTH, VOCAB_SIZE
from core.dataset_files import DataFile
from core.job_spec import JobSpec
from worker.training import tokenizer
from worker.training.assignment import Assignment
from worker.training.corpus import gather
from worker.training.rows import look_through

R = TypeVar("R")

LEARNT_FROM = 20_000  # paragraphs
SPEC = {"dataset": "ds", "model": {"checkpoint": {"job": "job", "epoch": 1}}, "sequence": {"max_length": MAX_LENGTH}}


def paragraphs() -> list[str]:
    """Return the text, cut at blank lines."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = "\n\n".join(file.read_text(encoding="utf-8") for file in files)
    return [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]


def write_corpus(path: Path, size: int) -> None:
    """Write `size` bytes of rows. Each time round every paragraph has another neighbour, so that no row comes twice."""
    texts, written, around = paragraphs(), 0, 0
    with path.open("w", encoding="utf-8") as file:
        while written < size:
            around += 1
            for place, text in enumerate(texts):
                written += file.write(json.dumps({"text": f"{text}\n{texts[place - around]}"}) + "\n")
                if written >= size:
                    return


def write_tokenizer(folder: Path) -> None:
    """Learn the tokenizer that both sides use, and save it as a checkpoint holds it."""
    texts = paragraphs()[:LEARNT_FROM]
    learnt = finish(tokenizer.learn(([text] for text in texts), rows=len(texts), vocab_size=VOCAB_SIZE))
    tokenizer.for_transformers(learnt, max_length=MAX_LENGTH).save_pretrained(folder)


def by_epochd(folder: Path, _scratch: Path) -> dict[str, float]:
    """Prepare the data of a job that goes on from a model with this tokenizer."""
    assignment = Assignment(
        spec=JobSpec.model_validate(SPEC),
        dataset=DataFile.model_validate_json((folder / "dataset.json").read_bytes()),
        base_model=folder / "model",
        output_dir=folder,
        cache_dir=folder / "cache",
    )
    started = time.perf_counter()
    tokens = finish(gather(assignment, vocab_size=VOCAB_SIZE)).training.ids
    return {"seconds": time.perf_counter() - started, "tokens": len(tokens)}


def by_datasets(folder: Path, scratch: Path) -> dict[str, float]:
    """Map the tokenizer over the loaded rows."""
    import datasets  # noqa: PLC0415 - only this process is to hold it
    from transformers import AutoTokenizer  # noqa: PLC0415 - likewise

    datasets.disable_progress_bars()
    words = AutoTokenizer.from_pretrained(folder / "model")
    words.model_max_length = 10**9  # no warning for each long row
    rows = datasets.load_dataset("json", data_files=str(folder / "corpus.jsonl"), split="train", cache_dir=str(scratch))
    started = time.perf_counter()
    mapped = rows.map(
        lambda batch: {"input_ids": words(batch["text"], add_special_tokens=False)["input_ids"]},
        batched=True,
        remove_columns=["text"],
    )
    seconds = time.perf_counter() - started
    # The service counts the end of each text too.
    tokens = sum(len(chunk.flatten()) for chunk in mapped.data.column("input_ids").chunks) + len(mapped)
    return {"seconds": seconds, "tokens": tokens}


SIDES = {"epochd": by_epochd, "datasets": by_datasets}


def finish(generator: Generator[Any, None, R]) -> R:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            result: R = end.value
            return result


def peak_mib() -> float:
    """Return the most memory this process ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def measured(side: str, folder: Path) -> dict[str, float]:
    """Measure one side in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "benchmarks.data_preparation", "--measure", side, str(folder), scratch]
        answer: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def tell(name: str, results: list[dict[str, float]], megabytes: float) -> None:
    """Print a side's medians."""
    seconds = statistics.median(result["seconds"] for result in results)
    peak = max(result["peak_mib"] for result in results)
    print(f"{name:36} {seconds:8.2f} s {megabytes / seconds:8.2f} MB/s {peak:8.0f} MiB at most")


def compare(size: int, runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_corpus(folder / "corpus.jsonl", size)
        write_tokenizer(folder / "model")
        file = DataFile(path=folder / "corpus.jsonl", format="jsonl")
        known = finish(look_through(file))
        (folder / "dataset.json").write_text(file.model_copy(update={"known": known}).model_dump_json())
        megabytes, ours, theirs, again = file.path.stat().st_size / 1e6, [], [], []
        print(f"{megabytes:.0f} MB of text in {known.rows:,} rows; median of {runs}, in turn")
        for _ in range(runs):
            ours.append(measured("epochd", folder))
            again.append(measured("epochd", folder))
            shutil.rmtree(folder / "cache")
            theirs.append(measured("datasets", folder))
    assert len({result["tokens"] for result in ours + theirs + again}) == 1, "both made the same tokens"
    tell("epochd: text -> tokens on disk", ours, megabytes)
    tell("datasets.map(batched=True)", theirs, megabytes)
    ratios = [t["seconds"] / o["seconds"] for o, t in zip(ours, theirs, strict=True)]
    print(f"datasets.map takes {statistics.median(ratios):.2f} times as long (median of pairs)")
    tell("epochd: a second job on this dataset", again, megabytes)


def main() -> None:
    """Compare, or be one of the processes compared."""
    parser = argparse.ArgumentParser(description="Text to tokens: epochd beside datasets.map.")
    parser.add_argument("--size-mb", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        side, folder, scratch = asked.measure
        print(json.dumps({**SIDES[side](Path(folder), Path(scratch)), "peak_mib": peak_mib()}))
    else:
        compare(asked.size_mb * 10**6, asked.runs)


if __name__ == "__main__":
    main()
