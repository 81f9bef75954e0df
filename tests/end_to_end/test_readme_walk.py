"""The shell lines of README.md and docs/, as written: only the address and the size of the run differ."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from cli.demo_corpus import write_corpus
from tests.stack import Stack

ROOT = Path(__file__).parents[2]


def _lines(document: str) -> str:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    return "set -euo pipefail\n" + "".join(blocks)


def test_the_lines_of_the_readme_do_what_they_say(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".epochd").symlink_to(stack.data_dir)
    (folder / ".epochd" / "demo").mkdir(exist_ok=True)
    write_corpus(folder / ".epochd" / "demo" / "python-docs.jsonl")
    lines = _lines("README.md")
    for written, here in {
        "http://127.0.0.1:8000": stack.url,
        '"n_layer": 4, "n_head": 4, "n_embd": 256': '"n_layer": 1, "n_head": 2, "n_embd": 32',
        '"max_length": 128, "stride": 42': '"max_length": 32',
    }.items():
        assert written in lines
        lines = lines.replace(written, here)
    done = subprocess.run(["bash", "-c", lines], cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    assert '"type":"batch"' in done.stdout
    assert '"type":"succeeded"' in done.stdout
    assert "model.safetensors: OK" in done.stdout


def test_each_job_of_the_models_page_is_one_that_can_run(stack: Stack, tmp_path: Path) -> None:
    spec = stack.write_spec(tmp_path, sequence={"max_length": 128})
    submitted = stack.epochd("submit", spec, "--watch")
    assert submitted.returncode == 0, submitted.stderr
    names = {"EPOCHD": stack.url, "KEY": stack.key, "DATASET": stack.push(), "JOB": submitted.stdout.splitlines()[0]}
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    for lines in blocks:
        done = subprocess.run(["bash", "-c", lines], env=os.environ | names, capture_output=True, check=True)
        plan = json.loads(done.stdout)
        assert plan["rows"] > 0, plan
        assert (plan["steps"] is None) == ("hub" in lines), plan


def test_the_trainer_works_by_hand_as_its_page_says(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / "README.md").write_text("some text to train on\n\n" * 20)
    done = subprocess.run(
        ["bash", "-c", _lines("docs/trainer.md")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert '"fact":"finished"' in done.stdout
    assert (tmp_path / "trained" / "step-00000002" / "model" / "model.safetensors").exists()


def test_the_lines_of_the_tokenizers_page_do_what_they_say(stack: Stack, tmp_path: Path) -> None:
    submitted = stack.epochd("submit", stack.write_spec(tmp_path), "--watch")
    assert submitted.returncode == 0, submitted.stderr
    names = {"EPOCHD": stack.url, "KEY": stack.key, "DATASET": stack.push(), "JOB": submitted.stdout.splitlines()[0]}
    command = ["bash", "-c", _lines("docs/tokenizers.md")]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | names, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokenizer, *previews, plan = _documents(done.stdout)
    assert (tokenizer["vocab_size"], tokenizer["lossless"]) == (257, True)
    assert [preview["vocab_size"] for preview in previews] == [257] * 3
    assert all(preview["windows"] for preview in previews)
    assert plan["exact"]


def _documents(text: str) -> list[dict[str, Any]]:
    """Return the JSON documents that stand one behind another."""
    found, place = [], 0
    while place < len(text):
        document, place = json.JSONDecoder().raw_decode(text, place)
        found.append(document)
    return found
