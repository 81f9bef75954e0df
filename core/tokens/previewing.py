"""Making a preview, in a confined process: the first rows, tokenized and cut by the very code of the trainer."""

from dataclasses import dataclass
from itertools import islice

import numpy as np

from core.dataset_files import IGNORED_LABEL, Row, read_rows
from core.errors import InvalidInput
from core.job_spec import Sequence
from core.preview import LeftOut, Preview, PreviewPart, PreviewRequest, PreviewRow, PreviewWindow
from core.tokens.arrays import Tokens
from core.tokens.encoding import size_of, tokens_of
from core.tokens.plain_tokenizer import PlainTokenizer, open_tokenizer, piece_texts
from core.tokens.sequences import Sequences, cut, windows_of_rows

# Of one row no more is read than people can look at; and so much is learnt from where a tokenizer is to be learnt.
_LONGEST_ROW = 2**18
_LEARNT_FROM = 2**20
_MOST_WINDOWS = 200
_MOST_TOKENS = 20_000
_HELD_BACK = "The first rows are shown; those that a job holds out for validation are drawn from all rows."


@dataclass(frozen=True)
class _Looked:
    """The rows to show, and which of them are whole; and the rows that a tokenizer would be learnt from."""

    rows: list[Row]
    whole: list[bool]
    to_learn: list[Row]
    learnt_from_all: bool


def preview(request: PreviewRequest) -> Preview:
    """Return the first rows as the model will see them. Raises InvalidInput where they cannot be read so."""
    looked = _look(request)
    words = None if request.tokenizer is None else open_tokenizer(request.tokenizer, looked.to_learn)
    holds_ids = looked.rows[0].input_ids is not None
    if words is None and not holds_ids:
        raise InvalidInput.at(("query", "tokenizer"), "The rows are text: name a tokenizer to read them with.")
    tokens = tokens_of(looked.rows, None if holds_ids else words, of="the dataset")
    sequences = cut(tokens, np.arange(tokens.rows), request.sequence)
    shown = _shown(sequences)
    windows = [_window(tokens, sequences, number, words) for number in range(shown)]
    return Preview(
        vocab_size=None if words is None else words.backend_tokenizer.get_vocab_size(),
        rows=[
            PreviewRow(row=place + 1, tokens=int(count), whole=whole)
            for place, (count, whole) in enumerate(zip(np.diff(tokens.bounds), looked.whole, strict=True))
        ],
        windows=windows,
        left_out=_left_out(tokens, sequences, request.sequence),
        more_windows=len(sequences) - shown,
        notes=_notes(request, looked),
    )


def _look(request: PreviewRequest) -> _Looked:
    """Read the rows to show, cut where they are endless, and where one is to be learnt those that it is learnt from."""
    learning = request.tokenizer is not None and request.tokenizer.learn is not None
    rows, whole, to_learn, size = list[Row](), list[bool](), list[Row](), 0
    reader = read_rows(request.file)
    for row in reader if learning else islice(reader, request.rows):
        if len(rows) < request.rows:
            cut_short, is_whole = _beginning(row)
            rows.append(cut_short)
            whole.append(is_whole)
        if learning:
            to_learn.append(_beginning(row)[0])
            size += size_of(row)
            if size >= _LEARNT_FROM and len(rows) == request.rows:
                break
    total = request.file.known.rows if request.file.known else None
    return _Looked(rows, whole, to_learn, learnt_from_all=len(to_learn) == total and size < _LEARNT_FROM)


def _beginning(row: Row) -> tuple[Row, bool]:
    """Return a row that is not endless, and whether that is all of it. Conversations and completions stay whole."""
    if row.text is not None and len(row.text) > _LONGEST_ROW:
        return Row(text=row.text[:_LONGEST_ROW]), False
    if row.input_ids is not None and row.labels is not None and len(row.input_ids) > _LONGEST_ROW:
        return Row(input_ids=row.input_ids[:_LONGEST_ROW], labels=row.labels[:_LONGEST_ROW]), False
    return row, True


def _shown(sequences: Sequences) -> int:
    """Return how many windows are shown: not more than an answer, and a person, can take."""
    within = np.cumsum(sequences.lengths) <= _MOST_TOKENS
    return min(len(sequences), _MOST_WINDOWS, max(1, int(within.sum())))


def _window(tokens: Tokens, sequences: Sequences, number: int, words: PlainTokenizer | None) -> PreviewWindow:
    starts, lengths = sequences.starts[number : number + 1], sequences.lengths[number : number + 1]
    if (packed := sequences.pieces) is not None:
        own = slice(packed.first[number], packed.first[number + 1])
        starts, lengths = packed.starts[own], packed.counts[own] + 1
    return PreviewWindow(
        positions=int(sequences.lengths[number]) - 1,
        loss_tokens=int(sequences.loss_tokens[number]),
        parts=[_part(tokens, int(start), int(length), words) for start, length in zip(starts, lengths, strict=True)],
    )


def _part(tokens: Tokens, start: int, length: int, words: PlainTokenizer | None) -> PreviewPart:
    row = int(np.searchsorted(tokens.bounds, start, side="right")) - 1
    ids: list[int] = tokens.ids[start : start + length].tolist()
    carries_loss: list[bool] = (tokens.labels[start : start + length] != IGNORED_LABEL).tolist()
    texts = {} if words is None else piece_texts(words.backend_tokenizer, ids)
    return PreviewPart(
        row=row + 1,
        start=start - int(tokens.bounds[row]),
        ids=ids,
        pieces=[texts.get(token) for token in ids],
        loss=[False, *carries_loss[1:]],  # nothing stands before the first from which it could be predicted
    )


def _left_out(tokens: Tokens, sequences: Sequences, wanted: Sequence) -> list[LeftOut]:
    """Return what is not trained on: of documents each window, of packed rows each row."""
    if sequences.pieces is None:
        starts, lengths = windows_of_rows(tokens, np.arange(tokens.rows), wanted)
        kept = set(sequences.starts.tolist())
    else:
        starts, lengths = tokens.bounds[:-1], np.diff(tokens.bounds)
        rows = np.searchsorted(tokens.bounds, sequences.pieces.starts, side="right") - 1
        kept = set(tokens.bounds[rows].tolist())
    found = list[LeftOut]()
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        if start not in kept and len(found) < _MOST_WINDOWS:
            row = int(np.searchsorted(tokens.bounds, start, side="right")) - 1
            reason = (
                f"shorter than min_length ({wanted.min_length})"
                if length < wanted.min_length
                else "nothing carries loss"
            )
            found.append(LeftOut(row=row + 1, start=start - int(tokens.bounds[row]), tokens=length, reason=reason))
    return found


def _notes(request: PreviewRequest, looked: _Looked) -> list[str]:
    notes = [_HELD_BACK]
    if request.tokenizer is not None and request.tokenizer.learn is not None and not looked.learnt_from_all:
        notes.append(
            f"The tokenizer was learnt from the first {len(looked.to_learn):,} rows alone; that of a job is learnt "
            "from the whole dataset, and will cut some words otherwise."
        )
    if not all(looked.whole):
        notes.append(f"Of a long row only the first {_LONGEST_ROW:,} characters or tokens are shown.")
    return notes
