"""Where a vocabulary comes from, without transformers: plain bytes, or learnt; and how texts are encoded with one."""

import re
from collections.abc import Iterator
from typing import Any, Protocol

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.job_spec import END_OF_TEXT

# The tokenizer holds some 100 bytes for each token it returns: a long text is handed to it in parts.
CHARACTERS_AT_ONCE = 2**18

_WORD_END = re.compile(r"\S(?=\s)")


class Words(Protocol):
    """A tokenizer as far as rows are read with it. Transformers' own are such, and so is `PlainTokenizer`."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer itself."""

    @property
    def eos_token(self) -> Any:
        """The end of text; None where it has none."""

    @property
    def eos_token_id(self) -> Any:
        """The id of the end of text; None where it has none."""

    @property
    def chat_template(self) -> Any:
        """How it writes conversations, as a Jinja template; None where it has none."""

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> Any:
        """Return a conversation as one text. Raises whatever the template does."""


def of_bytes() -> Tokenizer:
    """Return the tokenizer whose ids 0 to 255 are the bytes themselves, and 256 the end of a text."""
    letters = {letter: byte for byte, letter in enumerate(byte_letters())}
    tokenizer = byte_level(models.BPE(vocab=letters, merges=[]))
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def byte_letters() -> list[str]:
    """Return the printable letter that stands for each byte in a byte-level vocabulary, as GPT-2 chose them.

    Printable bytes stand for themselves, the others, in order, for the code points from 256 on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def byte_level(model: models.Model) -> Tokenizer:
    """Return a tokenizer on the bytes of a text, cut into words as GPT-2 cuts it: whatever goes in comes out again.

    Text without spaces, such as Chinese, is cut at punctuation, digits and other scripts alone, so that tokens grow
    from characters to words as far as the vocabulary allows.
    """
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def bpe_trainer(vocab_size: int, special_tokens: list[str]) -> trainers.BpeTrainer:
    """Return what learns a byte-level BPE: the end of text and the special tokens have the first ids, then the bytes.

    Any text can be encoded: the 256 bytes are always in the vocabulary.
    """
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, *special_tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )


def between_specials(text: str, special_tokens: list[str]) -> list[str]:
    """Return the parts of a text between special tokens, which are tokens already and not made of others."""
    pattern = "|".join(re.escape(token) for token in sorted([END_OF_TEXT, *special_tokens], key=len, reverse=True))
    return [part for part in re.split(pattern, text) if part]


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """Let a tokenizer take texts as they are, and return it: some are saved with a length to cut or to fill them to."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(words: Words, texts: list[str], continues: list[bool]) -> list[list[int]]:
    """Return the token ids of each text, and nothing around them. Uses every core.

    A text that `continues` is encoded as what comes behind another text.
    """
    mark = _mark_before(words) if any(continues) else None
    if mark is None:
        return _encode(words, texts)
    # As transformers does it for parts of a chat: encode behind something, and take that away again. It must be
    # something that no token joins with what follows: before a space or a newline that is a digit.
    marks = ["0" if text[:1].isspace() else mark for text in texts]
    marks = [mark if behind else "" for mark, behind in zip(marks, continues, strict=True)]
    digit, other, *encoded = _encode(words, ["0", mark, *map(str.__add__, marks, texts)])
    before = {"": [], mark: other, "0": digit}
    for place, mark in enumerate(marks):
        count = len(before[mark])
        if encoded[place][:count] == before[mark]:
            del encoded[place][:count]
        else:  # one token joins them all the same
            [encoded[place]] = _encode(words, [texts[place]])
    return encoded


def _mark_before(words: Words) -> str | None:
    """Return what to put before a text to have it encoded as what comes behind another; None where that is the same.

    It is not where a text's first word gets a mark that later ones have from the space before them: SentencePiece.
    """
    [newline] = _encode(words, ["\n"])
    mark = "\n" if newline else "0"  # some drop a newline where nothing stands before it
    together, before, word = _encode(words, [f"{mark}a", mark, "a"])
    return None if together == before + word else mark


def _encode(words: Words, texts: list[str]) -> list[list[int]]:
    encodings = words.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def parts(text: str) -> Iterator[str]:
    """Cut a long text where a word ends: no token of a byte-level tokenizer reaches over that into the next space."""
    start = 0
    # Only a search from where a part is long enough: most texts are one part, and need none.
    while len(text) - start > CHARACTERS_AT_ONCE and (end := _WORD_END.search(text, start + CHARACTERS_AT_ONCE - 1)):
        yield text[start : end.end()]
        start = end.end()
    yield text[start:]
