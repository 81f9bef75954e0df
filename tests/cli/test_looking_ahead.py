"""`epochd tokenizers`, `datasets preview` and `plan`: what is there before anything is trained."""

import json
import os
import pty
import re
import sys
from pathlib import Path
from subprocess import Popen

from core.tokens.vocabulary import of_bytes
from tests.cli.conftest import Main
from tests.stack import TINY_SPEC, Stack


def test_a_tokenizer_is_pushed_and_listed(on_stack: Main, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(of_bytes().to_str())
    pushed = on_stack("tokenizers", "push", "tokenizer.json")
    assert pushed.status == 0, pushed.err
    assert re.fullmatch(r"tok_\w{26}\n", pushed.out)
    assert "257 tokens, <|endoftext|> ends a text" in pushed.err
    listed = on_stack("tokenizers", "list").out
    assert re.search(rf"{pushed.out.strip()} +tokenizer.json +tokenizer.json +257 +<\|endoftext\|>", listed)


def _push(on_stack: Main, folder: Path) -> str:
    row = {"prompt": "one\n", "completion": "two"}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"completion": "three"}))
    return on_stack("datasets", "push", "rows.jsonl").out.strip()


def test_a_preview_in_a_pipe_is_plain(on_stack: Main, tmp_path: Path) -> None:
    shown = on_stack("datasets", "preview", _push(on_stack, tmp_path), "--tokenizer", "bytes", "--max-length", "6")
    assert shown.status == 0, shown.err
    assert shown.out.splitlines() == [
        "window 1: row 1, tokens 0 to 5 (2 of 5 positions carry loss)",
        "~o|~n|~e|~↵|t|w",
        "window 2: row 1, tokens 6 to 7 (1 of 1 positions carry loss)",
        "~o|<|endoftext|>",
        "window 3: row 2, tokens 0 to 5 (2 of 5 positions carry loss)",
        "~o|~n|~e|~↵|t|h",
        "window 4: row 2, tokens 6 to 9 (3 of 3 positions carry loss)",
        "~r|e|e|<|endoftext|>",
    ]
    assert "held" in shown.err or "hold" in shown.err


def test_a_preview_in_a_terminal_is_coloured(stack: Stack, on_stack: Main, tmp_path: Path) -> None:
    dataset = _push(on_stack, tmp_path)
    master, terminal = pty.openpty()
    command = ["-m", "cli.main", "datasets", "preview", dataset, "--tokenizer", "bytes"]
    environment = stack.environment | {"TERM": "xterm-256color", "COLUMNS": "80"}
    process = Popen([sys.executable, *command], env=environment, stdout=terminal, stderr=terminal)
    os.close(terminal)
    said = b""
    try:
        while chunk := os.read(master, 4096):
            said += chunk
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert process.wait() == 0
    text = said.decode()
    assert "─" in text, "windows are ruled off from each other"
    assert "\x1b[2;9mo" in text, "without loss: dimmed and struck through"
    assert "\x1b[36mt\x1b[0m\x1b[32mw" in text, "with loss: in turns"


def test_a_plan_is_shown_and_nothing_is_submitted(on_stack: Main, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(TINY_SPEC | {"dataset": stack.push()}))
    before = on_stack("jobs").out
    shown = on_stack("plan", "spec.json")
    assert shown.status == 0, shown.err
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in shown.out.splitlines())
    assert lines["plan"] == "exact: every token was counted"
    assert lines["rows"].startswith("23 to train on, 1 to validate on")
    assert re.match(r"\d+, of \d+ batches in an epoch", lines["updates"])
    assert "about" in lines["memory"]
    assert "first update" in shown.out
    assert "Rows held out for validation: 1" in shown.err
    assert on_stack("submit", "spec.json", "--dry-run").out == shown.out
    assert on_stack("jobs").out == before
