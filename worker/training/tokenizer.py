"""The tokenizer of a run, as transformers saves and loads it: learnt, uploaded, or an earlier one's."""

import json
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import cast

from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.job_spec import END_OF_TEXT
from core.tokens.vocabulary import Words, bpe_trainer, byte_level, plain
from worker.training.facts import Preparing
from worker.training.token_cache import key_of

# Either makes a tokenizer; older models of the hub have only the second.
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


def learn(
    texts: Iterable[list[str]], *, rows: int, vocab_size: int, special_tokens: Iterable[str] = ()
) -> Generator[Preparing, None, Tokenizer]:
    """Learn a byte-level BPE of at most `vocab_size` tokens from the texts of `rows` rows.

    Tells twice a second how far it is. The same texts give the same tokenizer, to the last byte.
    """
    tokenizer = byte_level(models.BPE())
    trainer = bpe_trainer(vocab_size, list(special_tokens))
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


def for_transformers(
    tokenizer: Tokenizer, *, max_length: int, end_of_text: str = END_OF_TEXT
) -> PreTrainedTokenizerFast:
    """Wrap a tokenizer so that it is saved as `AutoTokenizer.from_pretrained` expects it.

    As in GPT-2 one special token serves as end, beginning, padding and, where the tokenizer names none, unknown.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end_of_text,
        bos_token=end_of_text,
        pad_token=end_of_text,
        unk_token=_unknown(tokenizer) or end_of_text,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def _unknown(tokenizer: Tokenizer) -> str | None:
    """Return what a tokenizer writes for what it cannot encode, where it says so."""
    model = json.loads(tokenizer.to_str())["model"]
    named: str | None = model.get("unk_token")
    return named if model.get("unk_id") is None else tokenizer.id_to_token(model["unk_id"])


def load_uploaded(path: Path, *, max_length: int, end_of_text: str) -> PreTrainedTokenizerFast:
    """Load a tokenizer that was uploaded, and checked then."""
    return for_transformers(plain(Tokenizer.from_file(str(path))), max_length=max_length, end_of_text=end_of_text)


def load(folder: Path) -> PreTrainedTokenizerFast | None:
    """Load the tokenizer in a model's folder; None where there is none, as in one that was trained on token ids."""
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    loaded = cast(
        PreTrainedTokenizerFast,
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
    )
    plain(loaded.backend_tokenizer)
    return loaded


def identity(words: Words) -> str:
    """Name all that a text's tokens follow from: two tokenizers of one identity make the same of any text."""
    return key_of(tokenizer=words.backend_tokenizer.to_str(), end_of_text=words.eos_token_id)
