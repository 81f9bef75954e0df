"""Where the vocabulary comes from: learnt from the dataset, plain bytes, or an earlier checkpoint."""

import re
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from worker.training.facts import Preparing

END_OF_TEXT = "<|endoftext|>"

_CHARACTERS_AT_ONCE = 2**20
_WORD_END = re.compile(r"\S(?=\s)")


def learn(texts: Iterable[str], *, rows: int, vocab_size: int) -> Generator[Preparing, None, Tokenizer]:
    """Learn a byte-level BPE of at most `vocab_size` tokens from `rows` texts, telling twice a second how far it is.

    The same texts give the same tokenizer. Any text can be encoded: the 256 bytes are always in the vocabulary.
    """
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    done = 0

    def counted() -> Iterator[str]:
        nonlocal done
        for text in texts:
            yield text
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
    """Load the tokenizer of a checkpoint's `model/` folder; None where it was trained on token ids and has none."""
    if not (folder / "tokenizer.json").exists():
        return None
    loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return cast(PreTrainedTokenizerFast, loaded)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    """Return the token ids of each text with the end of text behind it. Uses every core.

    The tokenizer holds some 100 bytes for each token it returns: a long text is handed to it in parts.
    """
    end = np.array([tokenizer.eos_token_id], dtype=np.int32)
    if sum(map(len, texts)) <= _CHARACTERS_AT_ONCE:
        return [np.append(ids, end) for ids in _encode_at_once(tokenizer, texts)]
    return [
        np.concatenate([*(ids for part in _parts(text) for ids in _encode_at_once(tokenizer, [part])), end])
        for text in texts
    ]


def _encode_at_once(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[npt.NDArray[np.int32]]:
    encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, dtype=np.int32) for encoding in encodings]


def _parts(text: str) -> Iterator[str]:
    """Cut a long text where a word ends: no token of a byte-level tokenizer reaches over that into the next space."""
    start = 0
    for match in _WORD_END.finditer(text):
        if match.end() - start >= _CHARACTERS_AT_ONCE:
            yield text[start : match.end()]
            start = match.end()
    yield text[start:]
