"""The README's shell lines, as written, against a stack of their own: only the address and the run's length differ."""

import re
import subprocess
from pathlib import Path

from cli.demo_corpus import write_corpus
from tests.stack import Stack

ROOT = Path(__file__).parents[2]


def _lines() -> str:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return "set -euo pipefail\n" + "".join(blocks)


def test_the_lines_of_the_readme_do_what_they_say(stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".epochd").symlink_to(stack.data_dir)
    (folder / ".epochd" / "demo").mkdir(exist_ok=True)
    write_corpus(folder / ".epochd" / "demo" / "python-docs.jsonl")
    lines = _lines()
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
