"""Where the vocabulary comes from: learnt from the dataset, plain bytes, or an earlier checkpoint."""

import re
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from worker.training.facts import Preparing
from worker.training.token_cache import key_of

END_OF_TEXT = "<|endoftext|>"
# The tokenizer holds some 100 bytes for each token it returns: a long text is handed to it in parts.
CHARACTERS_AT_ONCE = 2**18

# Either makes a tokenizer; older models of the hub have only the second.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
_WORD_END = re.compile(r"\S(?=\s)")


def learn(texts: Iterable[list[str]], *, rows: int, vocab_size: int) -> Generator[Preparing, None, Tokenizer]:
    """Learn a byte-level BPE of at most `vocab_size` tokens from the texts of `rows` rows.

    Tells twice a second how far it is. The same texts give the same tokenizer. Any text can be encoded: the 256 bytes
    are always in the vocabulary.
    """
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    done = 0

    def counted() -> Iterator[list[str]]:
        nonlocal done
        for row in texts:
            yield row
            done += 1

    learning: Future[None] = Future()

    def learn_all() -> None:
        try:
            tokenizer.train_from_iterator(counted(), trainer)
        except BaseException as error:  # noqa: BLE001 - the waiting side raises it
            learning.set_exception(error)
        else:
            learning.set_result(None)

    yield Preparing(phase="tokenizer", done=0, total=rows)
    # A daemon, and waited for by nobody: it cannot be interrupted, and a stop order must not wait for it.
    Thread(target=learn_all, name="learn-tokenizer", daemon=True).start()
    while wait([learning], timeout=0.5).not_done:
        yield Preparing(phase="tokenizer", done=done, total=rows)
    learning.result()
    yield Preparing(phase="tokenizer", done=rows, total=rows)
    return tokenizer


def of_bytes() -> Tokenizer:
    """Return the tokenizer whose ids 0 to 255 are the bytes themselves, and 256 the end of a text."""
    tokenizer = _byte_level(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def _letters() -> list[str]:
    """Return the printable letter that stands for each byte in a byte-level vocabulary, as GPT-2 chose them.

    Printable bytes stand for themselves, the others, in order, for the code points from 256 on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _byte_level(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def for_transformers(tokenizer: Tokenizer, *, max_length: int) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer so that it is saved as `AutoTokenizer.from_pretrained` expects it.

    As in GPT-2 one special token serves as end, beginning, padding and (never needed) unknown.
    """
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def load(folder: Path) -> PreTrainedTokenizerFast | None:
    """Load the tokenizer in a model's folder; None where there is none, as in one that was trained on token ids."""
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    loaded = cast(
        PreTrainedTokenizerFast,
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )
    # Some are saved with a length to cut every text to, or to fill it up to: rows are taken as they are.
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def identity(tokenizer: PreTrainedTokenizerFast) -> str:
    """Name all that a text's tokens follow from: two tokenizers of one identity make the same of any text."""
    return key_of(tokenizer=tokenizer.backend_tokenizer.to_str(), end_of_text=tokenizer.eos_token_id)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str], continues: list[bool]) -> list[list[int]]:
    """Return the token ids of each text, and nothing around them. Uses every core.

    A text that `continues` is encoded as what comes behind another text.
    """
    if not any(continues) or not _marks_beginnings(tokenizer):
        return _encode(tokenizer, texts)
    # As transformers does it for parts of a chat: encode behind something, and take that away again. It must be
    # something that no token joins with what follows: a newline, or before a space or another newline a digit.
    marks = ["0" if text[:1].isspace() else "\n" for text in texts]
    marks = [mark if behind else "" for mark, behind in zip(marks, continues, strict=True)]
    digit, newline, *encoded = _encode(tokenizer, ["0", "\n", *map(str.__add__, marks, texts)])
    before = {"": [], "0": digit, "\n": newline}
    for place, mark in enumerate(marks):
        count = len(before[mark])
        if encoded[place][:count] == before[mark]:
            del encoded[place][:count]
        else:  # one token joins them all the same
            [encoded[place]] = _encode(tokenizer, [texts[place]])
    return encoded


def _marks_beginnings(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Tell whether a text's first word is encoded otherwise than the same word later on, as SentencePiece does it."""
    together, newline, word = _encode(tokenizer, ["\na", "\n", "a"])
    return together != newline + word


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def parts(text: str) -> Iterator[str]:
    """Cut a long text where a word ends: no token of a byte-level tokenizer reaches over that into the next space."""
    start = 0
    # Only a search from where a part is long enough: most texts are one part, and need none.
    while len(text) - start > CHARACTERS_AT_ONCE and (end := _WORD_END.search(text, start + CHARACTERS_AT_ONCE - 1)):
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]
