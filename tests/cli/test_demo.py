"""`epochd demo`, with a smaller job: the corpus, the job, the checkpoint in transformers, the curve, the curl lines."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from cli import demo_corpus
from tests.cli.conftest import Main
from tests.stack import TINY_SPEC, Stack


def test_the_corpus_is_english(tmp_path: Path) -> None:
    count = demo_corpus.write_corpus(tmp_path / "docs.jsonl")

    texts = [json.loads(line)["text"] for line in (tmp_path / "docs.jsonl").read_text().splitlines()]
    assert len(texts) == count > 100
    paragraphs = [paragraph for text in texts for paragraph in text.split("\n")]
    assert len(paragraphs) == len(set(paragraphs))
    # Every Python brings a text of its own; these hold of English.
    words = " ".join(texts).split()
    assert len(words) > 15_000
    assert sum(word in ("the", "of", "is", "and", "to") for word in words) / len(words) > 0.1


def test_the_demo_runs_to_its_end(on_stack: Main, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"sequence": {"max_length": 128}, "training": {"epochs": 1, "batch_size": 64}}
    monkeypatch.setattr("cli.commands.demo.demo_spec", lambda dataset: TINY_SPEC | small | {"dataset": dataset})
    monkeypatch.setenv("COLUMNS", "100")

    ended = on_stack("demo")

    assert ended.status == 0, ended.err
    said = re.sub(r"\s+", " ", ended.out)
    for part in (
        "uploaded as ds_",
        "submitted as job_",
        "succeeded",
        "model.safetensors",
        "loss by update",
        "training",
    ):
        assert part in said
    assert "each matches its sha256" in ended.err
    assert stack.process.poll() is None, "the stack was there before the demo"
    lines = [shlex.split(line.partition(" | ")[0]) for line in ended.out.splitlines() if line.startswith("curl ")]
    assert len(lines) == 5
    key = f"Authorization: Bearer {stack.key}"
    for words in lines:
        words[2] = key
        assert subprocess.run([*words, "--fail", "--silent"], capture_output=True, check=False).returncode == 0, words
