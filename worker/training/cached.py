"""What is made of a dataset once and kept for every later job: the learnt tokenizer, and the tokens."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile, Known, holds_ids
from core.job_spec import TokenizerTraining
from core.tokens import chat
from core.tokens.arrays import Tokens
from core.tokens.encoding import texts_to_learn
from core.tokens.vocabulary import of_bytes
from worker.training import tokenizer
from worker.training.dataset import TokenWriter, map_tokens
from worker.training.facts import Preparing
from worker.training.rows import rows_of
from worker.training.token_cache import Entry, TokenCache, key_of
from worker.training.tokenizing import tokenize

# Part of every key: to be raised with each change of what the same rows are made into.
_VERSION = 2
# What a tokenizer is learnt from at most. Learning holds every word that differs: of varied text some 2.3 MB for each
# MB, and more text than this would hardly change which words are common.
_LEARNT_FROM_BYTES = 2**27


@dataclass(frozen=True)
class Tokenized:
    """A dataset's tokens; `largest_id` is that of all ids and labels; `sha256` names the tokens, labels and bounds."""

    tokens: Tokens
    largest_id: int
    sha256: str


def tokenized(
    file: DataFile, known: Known, words: PreTrainedTokenizerFast | None, cache: TokenCache
) -> Generator[Preparing, None, Tokenized]:
    """Return the tokens of a file, from the cache or made now. Raises what `tokenize` does."""
    # Token ids are the same under any tokenizer, and a chat template is nothing to rows that are no conversations.
    reader = None if words is None or holds_ids(known.columns) else tokenizer.identity(words)
    template = words.chat_template if words is not None and "messages" in known.columns else None
    key = key_of(what="tokens", version=_VERSION, tokenizer=reader, chat_template=template, **_content(file, known))
    if entry := cache.find(key):
        return _opened(entry)
    with cache.draft(key) as draft:
        writer = TokenWriter(draft.folder)
        yield from tokenize(file, known, words, writer)
        entry = draft.publish(writer.close())
    return _opened(entry)


def _opened(entry: Entry) -> Tokenized:
    with entry:
        return Tokenized(tokens=map_tokens(entry), **entry.meta)


def learnt_tokenizer(
    file: DataFile, known: Known, asked: TokenizerTraining, cache: TokenCache
) -> Generator[Preparing, None, Tokenizer]:
    """Return the tokenizer learnt from a file as asked, from the cache or made now.

    Of a large file one row in `learnt_from_one_in` is read, evenly all over it. Raises what `rows_of` does.
    """
    key = key_of(what="tokenizer", version=_VERSION, **asked.model_dump(), **_content(file, known))
    if entry := cache.find(key):
        with entry:
            return Tokenizer.from_str(entry.files["tokenizer.json"].read().decode())
    one_in = learnt_from_one_in(known)
    learnt = yield from tokenizer.learn(
        _texts(file, asked.special_tokens, one_in=one_in),
        rows=-(-known.rows // one_in),
        vocab_size=asked.vocab_size,
        special_tokens=asked.special_tokens,
    )
    with cache.draft(key) as draft:
        learnt.save(str(draft.folder / "tokenizer.json"))
        draft.publish({}).close()
    return learnt


def learnt_from_one_in(known: Known) -> int:
    """Return n where a tokenizer is learnt from every n-th row of a file; 1 where from all of them."""
    return max(1, -(-known.bytes // _LEARNT_FROM_BYTES))


def _content(file: DataFile, known: Known) -> dict[str, str]:
    return {"sha256": known.sha256, "format": file.format, "split": file.split}


def _texts(file: DataFile, special_tokens: list[str], *, one_in: int) -> Iterator[list[str]]:
    """Yield what a tokenizer is learnt from: every `one_in`-th row's texts."""
    renderer = tokenizer.for_transformers(of_bytes(), max_length=0)
    chat.ensure_template(renderer)
    for number, row in enumerate(rows_of(file)):
        if number % one_in == 0:
            yield texts_to_learn(row, renderer, special_tokens, where=f"Row {number + 1} of {file.path.name}")
