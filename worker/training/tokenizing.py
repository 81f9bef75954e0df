"""From rows to tokens: encoded in chunks on every core, while others are read and written.

The tokenizer works outside of Python's lock; reading, cutting and writing do not, and cost a fifth of its time.
"""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile, Known, holds_ids
from core.errors import DataError
from core.tokens.arrays import Block
from core.tokens.encoding import blocks_of_ids, chunks_of_pieces, encoded
from worker.training.dataset import TokenWriter
from worker.training.facts import Preparing
from worker.training.rows import Progress, rows_of

# Enough that no core waits for a chunk, few enough that all their tokens are small beside the model.
_CHUNKS_AT_ONCE = 8
_SECONDS_BETWEEN_LOOKS = 0.1


def tokenize(
    file: DataFile, known: Known, tokenizer: PreTrainedTokenizerFast | None, writer: TokenWriter
) -> Generator[Preparing, None, None]:
    """Read a file into tokens, telling twice a second how far it is, and at the end.

    Raises DataError for text where there is no tokenizer, or one without an end of text, for a conversation that its
    chat template refuses, and for a file that is damaged; InvalidInput for a row that cannot be read.
    """
    progress = Progress("tokens")
    if holds_ids(known.columns):
        blocks: Iterator[Block | None] = blocks_of_ids(rows_of(file))
    elif tokenizer is None:
        raise DataError(
            "The rows are text, but the run has no tokenizer.",
            "Give rows of input_ids, or a model or dataset that brings a tokenizer.",
        )
    elif tokenizer.eos_token_id is None:
        raise DataError(
            "The tokenizer knows no end of text, which must stand behind every row.",
            "Use a model whose tokenizer_config.json names an eos_token.",
        )
    else:
        blocks = _blocks_of_text(file, tokenizer)
    for block in blocks:
        if block is not None:
            writer.append(block)
        yield from progress.tell(writer.rows, known.rows)
    yield Preparing(phase="tokens", done=writer.rows, total=known.rows)


def _blocks_of_text(file: DataFile, tokenizer: PreTrainedTokenizerFast) -> Iterator[Block | None]:
    """Encode rows, several chunks at once, and yield their blocks in order; None where one takes its time."""
    pool = ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="encode")
    under_way = deque[Future[Block]]()
    try:
        for chunk in chunks_of_pieces(rows_of(file), tokenizer, of=file.path.name):
            under_way.append(pool.submit(encoded, tokenizer, chunk))
            if len(under_way) == _CHUNKS_AT_ONCE:
                yield from _patiently(under_way.popleft())
        while under_way:
            yield from _patiently(under_way.popleft())
    finally:
        # Nobody waits here: a stop order, or an error, may have come first.
        pool.shutdown(wait=False, cancel_futures=True)


def _patiently(future: Future[Block]) -> Iterator[Block | None]:
    while wait([future], timeout=_SECONDS_BETWEEN_LOOKS).not_done:
        yield None
    yield future.result()
