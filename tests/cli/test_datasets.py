"""Datasets from the command line: checked without a server, pushed as a file or as a folder of essays, and deleted."""

import pickle
from pathlib import Path

import pytest

from cli.essays import gather, read_essay
from core.errors import InvalidInput
from tests.cli.conftest import Main
from tests.stack import TINY_SPEC, Stack

ESSAY = """---
标题\uff1a徜徉在书籍中
日期\uff1a2020-01-01 00:00:00
作者\uff1a佚名
---


第一段。

  第二段\uff1a有冒号。
"""
JOINED = "徜徉在书籍中<sep>第一段。\n  第二段\uff1a有冒号。\n<eod>"


def test_a_file_is_checked_without_a_server(epochd: Main, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "one"}\n{"text": "three"}\n')
    good = epochd("datasets", "check", "good.jsonl")
    assert good.status == 0
    assert good.out == "line 2: empty, will be skipped\n"
    assert "11 characters; 1 rows skipped; 1 rows that repeat an earlier one" in good.err
    assert "2 to 3           characters" in good.err
    assert "can be used as it is" in good.err


def test_every_fault_of_a_file_is_printed(epochd: Main, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "one"}\n' + "nope\n" * 100)
    bad = epochd("datasets", "check", "bad.jsonl")
    assert bad.status == 1
    assert [line.split(" is ")[0] for line in bad.out.splitlines()] == [f"line {number}" for number in range(2, 102)]
    assert "correct the lines that are named" in bad.err
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps([[1], ["a"]]))
    of_rows = epochd("datasets", "check", "bad.pkl")
    assert (of_rows.status, of_rows.out.startswith("row 2 ")) == (1, True)
    (tmp_path / "chinese.txt").write_bytes("你好".encode("gb18030"))
    assert "--encoding" in epochd("datasets", "check", "chinese.txt").out
    assert epochd("datasets", "check", "chinese.txt", "--encoding", "gb18030").status == 0


@pytest.mark.parametrize(
    ("text", "title", "body"),
    [
        (ESSAY, "徜徉在书籍中", "第一段。\n  第二段\uff1a有冒号。\n"),
        ("title: A day\ndate: 2020\nauthor: me\n\nIt was one.\n\n\nIt ended.", "A day", "It was one.\nIt ended."),
        ("\ufeff\n---\r\ntitle:A\r\n---\r\nx: y\r\n", "A", "x: y\r\n"),
    ],
)
def test_an_essay_has_a_title_and_a_body(text: str, title: str, body: str) -> None:
    assert read_essay(text) == (title, body)


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "no header"), ("just text", "no header"), ("title:\n\nx", "no header"), ("title: A\n\n \n", "no text")],
)
def test_what_is_no_essay_says_why(text: str, word: str) -> None:
    with pytest.raises(InvalidInput, match=word):
        read_essay(text)


def test_a_folder_of_essays_is_written_in_the_order_of_names(tmp_path: Path) -> None:
    for name, content in (("2.txt", b"title: B\n\nb"), ("1.txt", b"title: A\n\na"), ("3.txt", b"none"), ("4.md", b"x")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "5.txt").write_bytes("title: \N{LATIN SMALL LETTER E WITH ACUTE}\n\nx".encode("latin-1"))
    target = tmp_path / "rows.jsonl"
    gathered = gather(tmp_path, target, separator="|", end="")
    assert target.read_text() == '{"text": "A|a"}\n{"text": "B|b"}\n'
    assert gathered.essays == 2
    assert [name for name, _ in gathered.left_out] == ["3.txt", "5.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="holds no essay"):
        gather(tmp_path / "empty", target, separator="", end="")


def test_the_teaching_projects_own_data_trains_as_it_is(on_stack: Main, stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "zuowen"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(ESSAY.replace("第一段", f"第{number}段" * (number + 1)))
    (folder / "no essay.txt").write_text("nothing")
    (tmp_path / "train.pkl").write_bytes(pickle.dumps([[n, n + 1, n + 2] * 4 for n in range(20)]))
    essays = on_stack("datasets", "push", "--folder", str(folder))
    assert essays.status == 0, essays.err
    assert "8 essays, 1 files left out" in essays.err
    assert "no essay.txt has no header" in essays.err
    lists = on_stack("datasets", "push", "train.pkl")
    assert "240 tokens" in lists.err
    assert f"{essays.out.strip()}  zuowen.jsonl" in on_stack("datasets", "list").out
    client = stack.client()
    of_ids = {name: value for name, value in TINY_SPEC.items() if name not in ("tokenizer", "samples")}
    for pushed, spec in ((essays, TINY_SPEC), (lists, of_ids)):
        job = client.post("/jobs", json=spec | {"dataset": pushed.out.strip()})["id"]
        ended = stack.wait_for(
            lambda job=job: seen if (seen := client.get(f"/jobs/{job}"))["finished_at"] else None, what="the job's end"
        )
        assert ended["status"] == "succeeded", ended["error"]
    assert on_stack("datasets", "push", "train.pkl").out == lists.out, "the same bytes are the same dataset"
    for pushed in (essays, lists):
        assert on_stack("datasets", "delete", pushed.out.strip()).status == 0
    assert lists.out.strip() not in on_stack("datasets", "list").out


def test_a_file_or_a_folder_is_named(epochd: Main) -> None:
    for arguments in ((), ("--folder", ".", "a.txt")):
        Path("a.txt").write_text("x")
        ended = epochd("datasets", "push", *arguments)
        assert (ended.status, "Name a file, or with --folder a folder" in ended.err) == (1, True)
