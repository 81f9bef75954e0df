"""A preview shows the very windows that are trained on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import InvalidInput
from core.job_spec import Sequence, TokenizerTraining
from core.preview import Preview, PreviewRequest
from core.tokenizer_source import TokenizerSource
from core.tokens import previewing
from core.tokens.sequences import cut
from tests.worker.training.tiny import prepared, ragged_rows, texts, write_rows
from tests.worker.training.tiny import tokens as flat
from worker.training.rows import look_through

_BYTES = TokenizerSource()


def _preview(
    folder: Path, rows: list[Any], *, count: int = 5, tokenizer: TokenizerSource | None = _BYTES, **sequence: Any
) -> Preview:
    file = write_rows(folder / "rows.jsonl", rows)
    known = file.model_copy(update={"known": prepared(look_through(file))})
    return previewing.preview(
        PreviewRequest(file=known, rows=count, tokenizer=tokenizer, sequence=Sequence(**{"max_length": 64} | sequence))
    )


def test_a_row_of_text_with_its_end(tmp_path: Path) -> None:
    shown = _preview(tmp_path, ["ab", "道"])
    assert shown.vocab_size == 257
    assert [(row.row, row.tokens, row.whole) for row in shown.rows] == [(1, 3, True), (2, 4, True)]
    [first], [second] = (window.parts for window in shown.windows)
    assert (first.row, first.start, first.ids) == (1, 0, [97, 98, 256])
    assert first.pieces == ["a", "b", "<|endoftext|>"]
    assert first.loss == [False, True, True], "nothing stands before the first"
    assert second.pieces == ["\\xe9", "\\x81", "\\x93", "<|endoftext|>"]
    assert (shown.left_out, shown.more_windows) == ([], 0)


def test_only_the_completion_carries_loss(tmp_path: Path) -> None:
    [window] = _preview(tmp_path, [{"prompt": "ab", "completion": "cd"}]).windows
    assert window.parts[0].loss == [False, False, True, True, True]
    assert (window.positions, window.loss_tokens) == (4, 3)


def test_a_conversation_is_written_by_the_template(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    [window] = _preview(tmp_path, [{"messages": messages}]).windows
    [part] = window.parts
    heard = "".join(str(piece) for piece, loss in zip(part.pieces, part.loss, strict=True) if loss)
    assert "".join(map(str, part.pieces)).startswith("<|user|>\nhi\n<|assistant|>\nyo")
    assert heard == "yo<|endoftext|>"


def test_windows_overlap_and_a_short_tail_is_left_out_with_its_reason(tmp_path: Path) -> None:
    shown = _preview(tmp_path, ["abcdefghij"], max_length=4, stride=3, min_length=3)
    assert [(window.parts[0].start, "".join(map(str, window.parts[0].pieces))) for window in shown.windows] == [
        (0, "abcd"), (3, "defg"), (6, "ghij"),
    ]  # fmt: skip
    [left_out] = shown.left_out
    assert (left_out.row, left_out.start, left_out.tokens) == (1, 9, 2)
    assert left_out.reason == "shorter than min_length (3)"


def test_what_carries_no_loss_is_left_out_with_its_reason(tmp_path: Path) -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}, [4, 5]]
    shown = _preview(tmp_path, rows, tokenizer=None)
    assert [(out.row, out.reason) for out in shown.left_out] == [(1, "nothing carries loss")]
    [window] = shown.windows
    assert (window.parts[0].ids, window.parts[0].pieces) == ([4, 5], [None, None])


def test_token_ids_can_be_read_with_a_tokenizer(tmp_path: Path) -> None:
    [window] = _preview(tmp_path, [list(b"hey")]).windows
    assert window.parts[0].pieces == ["h", "e", "y"]


@pytest.mark.parametrize("mode", ["document", "packed"])
def test_the_windows_are_those_of_the_trainer(mode: str, tmp_path: Path) -> None:
    rows = ragged_rows(30)
    wanted = {"mode": mode, "max_length": 13}
    shown = _preview(tmp_path, rows, count=30, tokenizer=None, **wanted)
    trained = cut(flat(rows), np.arange(30), Sequence(**wanted))  # type: ignore[arg-type]
    assert len(shown.windows) == len(trained)
    assert [window.positions for window in shown.windows] == (trained.lengths - 1).tolist()
    assert [window.loss_tokens for window in shown.windows] == trained.loss_tokens.tolist()
    assert sum(sum(part.loss) for window in shown.windows for part in window.parts) == trained.loss_tokens.sum()
    for window in shown.windows:
        for part in window.parts:
            assert part.ids == rows[part.row - 1][part.start : part.start + len(part.ids)]
    if mode == "packed":
        assert {len(window.parts) for window in shown.windows} != {1}


def test_a_tokenizer_learnt_from_a_part_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = TokenizerSource(learn=TokenizerTraining(vocab_size=300))
    shown = _preview(tmp_path, texts(200), count=2, tokenizer=learn)
    assert shown.vocab_size == 300
    assert not any("alone" in note for note in shown.notes)
    monkeypatch.setattr(previewing, "_LEARNT_FROM", 500)
    shown = _preview(tmp_path, texts(200), count=2, tokenizer=learn)
    assert len(shown.rows) == 2
    assert any("learnt from the first" in note and "alone" in note for note in shown.notes)


def test_endless_rows_and_many_windows_are_not_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(previewing, "_LONGEST_ROW", 100)
    monkeypatch.setattr(previewing, "_MOST_TOKENS", 40)
    shown = _preview(tmp_path, ["x" * 1000], max_length=10)
    assert shown.rows[0].tokens == 101
    assert not shown.rows[0].whole
    assert (len(shown.windows), shown.more_windows) == (4, 6)
    assert any("only the first 100" in note for note in shown.notes)


def test_text_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="name a tokenizer"):
        _preview(tmp_path, ["ab"], tokenizer=None)
