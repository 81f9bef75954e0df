"""Looking through an uploaded tokenizer, in a confined process: whether rows can be read with it, and come back."""

import json
from typing import Any

from tokenizers import Tokenizer

from core.errors import InvalidInput
from core.tokenizer_files import Checked, CheckRequest, Format
from core.tokens import sentencepiece_model
from core.tokens.vocabulary import plain

# How well-known tokenizers name the end of a text.
_NAMES_OF_THE_END = (
    "<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "<eod>", "<|im_end|>", "[EOS]", "<|eos|>",
)  # fmt: skip
_SCRIPTS = "Hello, world! naïve café\n  x = 1\t# 東京 道可道。非常道。 Привет שלום 안녕 🙂 1,234.5"
# Nothing that a text could be made of may take a tokenizer longer than texts in general do.
_STRAINS = ("a" * 20_000, " " * 20_000, "道" * 20_000, "ab1 " * 5_000, "!" * 20_000, "\n" * 20_000)
_MOST_TOKENS = 2**20


def check(request: CheckRequest) -> Checked:
    """Read a file and write it as the trainer reads it. Raises InvalidInput where it is of no use."""
    content = request.path.read_bytes()
    tokenizer, kind, named = _read(content)
    size = _vocab_size(tokenizer)
    end_of_text = _end_of_text(tokenizer, request.end_of_text, named)
    try:
        tokenizer.encode_batch_fast(list(_STRAINS), add_special_tokens=False)
        ids = tokenizer.encode(_SCRIPTS, add_special_tokens=False).ids
        lossless = tokenizer.decode(ids, skip_special_tokens=False) == _SCRIPTS
        tokenizer.save(str(request.target))
    except BaseException as error:
        raise InvalidInput(f"No text can be read with this tokenizer: {_short(error)}") from error
    if not ids or max(ids) >= size:
        raise InvalidInput("This tokenizer makes no tokens of a text, or such as are not in its vocabulary.")
    return Checked(format=kind, vocab_size=size, end_of_text=end_of_text, lossless=lossless)


def _read(content: bytes) -> tuple[Tokenizer, Format, str | None]:
    if content.lstrip()[:1] != b"{":
        tokenizer, named = sentencepiece_model.read(content)
        return tokenizer, "sentencepiece", named
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The file is not JSON: {str(error)[:200]}.") from error
    try:
        tokenizer = plain(Tokenizer.from_str(json.dumps(_without_chance(document))))
    except BaseException as error:
        raise InvalidInput(f"The file is no tokenizer.json of the tokenizers library: {_short(error)}") from error
    return tokenizer, "tokenizer.json", None


def _without_chance(document: dict[str, Any]) -> dict[str, Any]:
    """Take out what would make of the same text other tokens each time: BPE dropout, and Unigram's sampling."""
    model = document.get("model")
    if isinstance(model, dict):
        for name in ("dropout", "alpha", "nbest_size"):
            if name in model:
                model[name] = None
    return document


def _vocab_size(tokenizer: Tokenizer) -> int:
    ids = tokenizer.get_vocab(with_added_tokens=True).values()
    if not ids or len(ids) > _MOST_TOKENS:
        raise InvalidInput(f"The vocabulary has {len(ids):,} tokens; between 1 and {_MOST_TOKENS:,} are needed.")
    if max(ids) >= len(ids):
        raise InvalidInput(
            f"The vocabulary has {len(ids):,} tokens and ids up to {max(ids):,}: ids must run from 0 without a gap."
        )
    return len(ids)


def _end_of_text(tokenizer: Tokenizer, wanted: str | None, named: str | None) -> str:
    if wanted is not None:
        if tokenizer.token_to_id(wanted) is None:
            raise InvalidInput.at(("query", "end_of_text"), f"The tokenizer has no token {wanted!r}.")
        return wanted
    for name in (named, *_NAMES_OF_THE_END):
        if name is not None and tokenizer.token_to_id(name) is not None:
            return name
    raise InvalidInput.at(
        ("query", "end_of_text"),
        "The tokenizer does not say which token ends a text, and one must stand behind every row: name it with "
        "?end_of_text=.",
    )


def _short(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:300]
