"""The second job on a dataset: it takes what the first one made, and only where that is truly the same."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.dataset_files import DataFile, Known
from core.errors import DataError
from tests.services import wait_for
from tests.worker.training.tiny import (
    assignment,
    fingerprint,
    last_checkpoint,
    of,
    prepared,
    run,
    texts,
    write_rows,
)
from worker.training import cached
from worker.training import rows as rows_module
from worker.training.assignment import Assignment
from worker.training.facts import Checkpoint, Planned, Preparing
from worker.training.loop import train
from worker.training.preparation import Run, prepare
from worker.training.rows import look_through

LEARNT = {"tokenizer": {"train": {"vocab_size": 300}}}


def job(folder: Path, rows: list[Any], **spec: Any) -> Assignment:
    """A run whose cache is `folder/cache`, on a dataset that was looked through at its upload."""
    made = assignment(folder, rows, **spec)
    known = prepared(look_through(made.dataset))
    return made.model_copy(
        update={"dataset": made.dataset.model_copy(update={"known": known}), "cache_dir": folder / "cache"}
    )


def phases(job: Assignment) -> list[str]:
    """What is made of the data, and not taken from the cache."""
    return list(dict.fromkeys(fact.phase for fact in prepare(job) if isinstance(fact, Preparing)))


def tokens_of(run: Run) -> tuple[list[int], list[int], list[int]]:
    """What a run trains on."""
    training = run.training
    return training.ids.tolist(), training.labels.tolist(), training.starts.tolist()


@pytest.mark.parametrize(
    ("rows", "spec", "made"),
    [
        (texts(20), LEARNT, ["tokenizer", "tokens"]),
        (texts(20), {"tokenizer": "bytes"}, ["tokens"]),
        ([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}] * 20, {}, ["tokens"]),
        ([{"prompt": text, "completion": text} for text in texts(20)], LEARNT, ["tokenizer", "tokens"]),
    ],
    ids=["learnt", "bytes", "token ids", "completions"],
)
def test_a_second_job_does_not_read_the_dataset(
    tmp_path: Path, rows: list[Any], spec: dict[str, Any], made: list[str]
) -> None:
    first = job(tmp_path, rows, **spec, validation={"fraction": 0.2})
    assert phases(first) == made
    once = tokens_of(prepared(prepare(first)))
    first.dataset.path.write_bytes(b"")
    second = first.model_copy(update={"output_dir": tmp_path / "second"})
    facts = list(prepare(second))
    assert [type(fact) for fact in facts] == [Planned]
    assert of(facts, Planned)[0].rows == 16
    assert tokens_of(prepared(prepare(second))) == once


def test_without_a_folder_for_it_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    alone = job(tmp_path, texts(20)).model_copy(update={"cache_dir": None})
    ready = prepared(prepare(alone))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not list((tmp_path / "out").iterdir())
    assert ready.training.ids[-1] == 256, "what was made can still be read"
    assert phases(alone) == ["tokens"]


def test_a_file_that_nobody_looked_through_is_found_by_its_bytes(tmp_path: Path) -> None:
    first = job(tmp_path, texts(20), **LEARNT)
    prepared(prepare(first))
    elsewhere = tmp_path / "copy.jsonl"
    shutil.copy(first.dataset.path, elsewhere)
    by_hand = first.model_copy(update={"dataset": DataFile(path=elsewhere, format="jsonl")})
    assert phases(by_hand) == []


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"tokenizer": {"train": {"vocab_size": 280}}}, ["tokenizer", "tokens"]),
        ({"tokenizer": "bytes"}, ["tokens"]),
        ({"training": {"seed": 5}, "sequence": {"max_length": 30}}, []),
    ],
)
def test_another_tokenizer_makes_other_tokens_and_nothing_else_does(
    tmp_path: Path, change: dict[str, Any], made: list[str]
) -> None:
    prepared(prepare(job(tmp_path, texts(20), **LEARNT)))
    assert phases(job(tmp_path, texts(20), **LEARNT | change)) == made


def test_other_rows_are_never_taken_for_the_same(tmp_path: Path) -> None:
    prepared(prepare(job(tmp_path, texts(20))))
    assert phases(job(tmp_path, texts(20, seed=1))) == ["tokens"]
    content = "one\n\ntwo\nthree\n"
    path = tmp_path / "rows.txt"
    path.write_text(content)
    made = []
    for split in ("blank_line", "line", "file"):
        dataset = DataFile.model_validate({"path": path, "format": "txt", "split": split})
        again = job(tmp_path, texts(20)).model_copy(update={"dataset": dataset})
        made.append((phases(again), len(prepared(prepare(again)).training)))
    assert made == [(["tokens"], 2), (["tokens"], 3), (["tokens"], 1)]


def test_a_chat_template_is_part_of_what_conversations_are_made_into(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]} for text in texts(5)
    ]
    first = run(job(tmp_path, rows, tokenizer="bytes", training={"epochs": 1}))
    base = tmp_path / "base"
    shutil.copytree(last_checkpoint(first) / "model", base)
    later = job(tmp_path, rows, tokenizer=None, model={"checkpoint": {"job": "j", "epoch": 1}})
    later = later.model_copy(update={"base_model": base})
    assert phases(later) == []
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|", "<:"))
    assert phases(later) == ["tokens"]
    plain = later.model_copy(update={"dataset": write_rows(tmp_path / "plain.jsonl", texts(5))})
    prepared(prepare(plain))
    template.unlink()
    assert phases(plain) == [], "a template is nothing to rows of text"


def test_of_a_large_dataset_every_nth_row_teaches_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = job(tmp_path, ["aaa", "kkk"] * 30, **LEARNT)
    assert large.dataset.known is not None
    monkeypatch.setattr(cached, "_LEARNT_FROM_BYTES", large.dataset.known.bytes // 2 + 1)
    facts = list(prepare(large))
    assert {fact.total for fact in of(facts, Preparing) if fact.phase == "tokenizer"} == {30}
    [warning] = of(facts, Planned)[0].warnings[:1]
    assert "learnt from one row in 2" in warning
    words = prepared(prepare(large)).tokenizer
    assert (words.tokenize("aaa"), words.tokenize("kkk")) == (["aaa"], ["k", "k", "k"])


@pytest.mark.parametrize("name", ["ids.int32", "bounds.int64", "tokenizer.json"])
def test_a_damaged_cache_changes_nothing(tmp_path: Path, name: str) -> None:
    first = job(tmp_path, texts(20), **LEARNT)
    once = tokens_of(prepared(prepare(first)))
    [file] = (tmp_path / "cache").glob(f"*/{name}")
    file.write_bytes(file.read_bytes()[:-4])
    assert tokens_of(prepared(prepare(first))) == once
    assert phases(first) == []


def test_resumed_after_the_cache_was_wiped_the_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    whole = job(
        tmp_path,
        [{"prompt": text, "completion": text} for text in texts(20)],
        **LEARNT,
        validation={"fraction": 0.2},
        training={"epochs": 2, "batch_size": 4},
        checkpoints={"every_steps": 3},
    )
    facts = run(whole)
    shutil.rmtree(tmp_path / "cache")
    for checkpoint in of(facts, Checkpoint)[:-1]:
        resumed = whole.model_copy(
            update={"resume_from": checkpoint.path, "output_dir": tmp_path / checkpoint.path.name}
        )
        later = run(resumed)
        assert fingerprint(last_checkpoint(later)) == fingerprint(last_checkpoint(facts)), checkpoint.step


def test_a_checkpoint_of_other_tokens_is_refused(tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 1}
    checkpoint = last_checkpoint(run(job(tmp_path, [[1, 2, 3], [4, 5, 6]], training=training), stop_after=1))
    labels = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [4, 5, 6], "labels": [4, 5, 5]}]
    for rows in ([[1, 2, 3], [4, 5, 5]], labels):
        other = job(tmp_path / "other", rows, training=training).model_copy(update={"resume_from": checkpoint})
        with pytest.raises(DataError, match="of another run"):
            run(other)
    same = job(tmp_path / "other", [{"input_ids": [1, 2, 3], "note": 1}, [4, 5, 6]], training=training)
    assert fingerprint(last_checkpoint(run(same.model_copy(update={"resume_from": checkpoint}))))


def test_a_stop_is_heard_while_tokens_are_made_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_SECONDS_BETWEEN_FACTS", 0.0)
    large = job(tmp_path, ["the import statement binds a name " * 1000] * 60)
    facts = []
    for fact in train(large, lambda: bool(facts)):
        facts.append(fact)
    assert [fact.fact for fact in facts] == ["preparing", "stopped"]
    assert facts[0].done < facts[0].total
    assert list((tmp_path / "cache").iterdir()) == []


def test_killed_while_it_makes_tokens_a_trainer_leaves_nothing_that_a_later_one_trusts(tmp_path: Path) -> None:
    rows = ["the import statement binds a name " * 1000] * 200
    killed = job(tmp_path, rows)
    trainer = subprocess.Popen(
        [sys.executable, "-m", "worker.training"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert trainer.stdin is not None
    trainer.stdin.write(killed.model_dump_json().encode() + b"\n")
    trainer.stdin.flush()
    cache = tmp_path / "cache"
    wait_for(
        lambda: any(path.stat().st_size for path in cache.glob(".draft-*/ids.int32")),
        seconds=120,
        what="a half-made entry",
    )
    trainer.send_signal(signal.SIGKILL)
    trainer.wait()
    [left] = cache.iterdir()
    assert left.name.startswith(".draft-")
    assert phases(killed) == ["tokens"]
    [entry] = cache.iterdir()
    assert not entry.name.startswith(".draft-"), "what the dead one left is gone"
    one = np.array([*rows[0].encode(), 256], dtype=np.int32)
    assert np.array_equal(prepared(prepare(killed)).training.ids, np.tile(one, 200))


def test_two_trainers_at_once_make_the_same(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import hashlib, sys
        from tests.worker.training.tiny import prepared
        from worker.training.assignment import Assignment
        from worker.training.preparation import prepare
        job = Assignment.model_validate_json(sys.stdin.readline())
        print("ready", flush=True)
        sys.stdin.readline()
        print(hashlib.sha256(prepared(prepare(job)).training.ids.tobytes()).hexdigest(), flush=True)
    """)
    shared = job(tmp_path, ["the import statement binds a name " * 1000] * 20, **LEARNT)
    pipe = subprocess.PIPE
    both = [subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    for trainer in both:
        assert trainer.stdin is not None
        trainer.stdin.write(shared.model_dump_json() + "\n")
        trainer.stdin.flush()
    for trainer in both:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "ready\n"
    for trainer in both:
        assert trainer.stdin is not None
        trainer.stdin.write("go\n")
        trainer.stdin.flush()
    told = [trainer.communicate()[0].strip() for trainer in both]
    expected = prepared(prepare(shared.model_copy(update={"cache_dir": None}))).training.ids
    assert told == [hashlib.sha256(expected.tobytes()).hexdigest()] * 2
    names = {path.name for path in (tmp_path / "cache").iterdir()}
    assert len(names) == 2, "one tokenizer, one dataset's tokens"
    assert phases(shared) == []


def test_tokens_take_no_memory_while_they_are_made(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.worker.training.tiny import prepared
        from worker.training.assignment import Assignment
        from worker.training.corpus import gather
        def peak_kib():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
        job = Assignment.model_validate_json(sys.stdin.read())
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        before = peak_kib()
        tokens = len(prepared(gather(job, vocab_size=None)).training.ids)
        print(tokens, peak_kib() - before)
    """)
    content = (json.dumps({"input_ids": list(range(5000))}) + "\n").encode() * 2000
    path = tmp_path / "large.jsonl"
    path.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    known = Known(bytes=len(content), sha256=sha256, rows=2000, skipped_rows=0, columns=("input_ids",))
    dataset = DataFile(path=path, format="jsonl", known=known)
    large = job(tmp_path, [[1, 2]]).model_copy(update={"dataset": dataset})
    done = subprocess.run(
        [sys.executable, "-c", program], input=large.model_dump_json(), capture_output=True, text=True, check=True
    )
    tokens, grown_kib = map(int, done.stdout.split())
    assert tokens == 10_000_000
    assert grown_kib < 25 * 1024, "the tokens are 38 MiB"
