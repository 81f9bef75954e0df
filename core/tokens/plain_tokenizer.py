"""A tokenizer without transformers: reads rows as the trainer's does, for processes that only look at them."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, models

from core.dataset_files import Row
from core.errors import InvalidInput
from core.job_spec import END_OF_TEXT, TokenizerTraining
from core.tokenizer_source import TokenizerSource
from core.tokens import chat
from core.tokens.encoding import texts_to_learn
from core.tokens.vocabulary import bpe_trainer, byte_letters, byte_level, of_bytes, plain

_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_ALL_ONE = ("bos_token", "eos_token", "unk_token", "pad_token")


class PlainTokenizer:
    """A tokenizer with its special tokens by their names, and its chat template."""

    def __init__(self, tokenizer: Tokenizer, special: dict[str, str], chat_template: str | None = None) -> None:
        self.backend_tokenizer = plain(tokenizer)
        self.chat_template = chat_template
        self._special = special

    @property
    def eos_token(self) -> str | None:
        """The end of text."""
        return self._special.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of the end of text."""
        return None if self.eos_token is None else self.backend_tokenizer.token_to_id(self.eos_token)

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        """Return a conversation as one text, as transformers would. Raises whatever the template does."""
        assert not tokenize, "a preview tokenizes pieces"
        template = _environment().from_string(self.chat_template or chat.DEFAULT_TEMPLATE)
        return template.render(
            messages=conversation,
            tools=[],
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **self._special,
        )


def open_tokenizer(source: TokenizerSource, rows: Sequence[Row]) -> PlainTokenizer:
    """Return the tokenizer of a source, ready for conversations too; one to be learnt is learnt from these rows.

    Raises InvalidInput where a model's folder has none that can be read without transformers.
    """
    if source.folder is not None:
        opened = _of_folder(source.folder)
    elif source.file is not None:
        opened = PlainTokenizer(Tokenizer.from_file(str(source.file)), dict.fromkeys(_ALL_ONE, source.end_of_text))
    else:
        made = of_bytes() if source.learn is None else _learnt(source.learn, rows)
        opened = PlainTokenizer(made, dict.fromkeys(_ALL_ONE, END_OF_TEXT))
    chat.ensure_template(opened)
    return opened


def _learnt(asked: TokenizerTraining, rows: Sequence[Row]) -> Tokenizer:
    renderer = PlainTokenizer(of_bytes(), dict.fromkeys(_ALL_ONE, END_OF_TEXT), chat.DEFAULT_TEMPLATE)
    tokenizer = byte_level(models.BPE())
    texts = (
        texts_to_learn(row, renderer, asked.special_tokens, where=f"Row {number}") for number, row in enumerate(rows, 1)
    )
    tokenizer.train_from_iterator(texts, bpe_trainer(asked.vocab_size, asked.special_tokens))
    return tokenizer


def _of_folder(folder: Path) -> PlainTokenizer:
    if not (folder / "tokenizer.json").is_file():
        raise InvalidInput("The checkpoint has no tokenizer.json: there is nothing to read text with.")
    config = json.loads((folder / "tokenizer_config.json").read_bytes())
    named = {name: config[name] for name in _SPECIAL if config.get(name)}
    special = {name: token["content"] if isinstance(token, dict) else str(token) for name, token in named.items()}
    template = folder / "chat_template.jinja"
    own = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    return PlainTokenizer(
        Tokenizer.from_file(str(folder / "tokenizer.json")), special, own if isinstance(own, str) else None
    )


class _Generation(Extension):
    """`{% generation %}` marks for other tools what an assistant says; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as in the base class

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    """Return what templates run in, as transformers does: sandboxed, with the few functions that they know."""

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def to_json(value: Any, *, ensure_ascii: bool = False, **form: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **form)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = to_json
    made.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": lambda form: datetime.now().strftime(form),  # noqa: DTZ005 - the time of whoever looks
    }
    return made


# What a token looks like ---------------------------------------------------------------------------------------------


def piece_texts(tokenizer: Tokenizer, ids: Iterable[int]) -> dict[int, str]:
    """Return what each of these tokens stands for, for people. Bytes that are no whole character: `\\xe4\\xb8`."""
    written = dict(zip(byte_letters(), range(256), strict=True))
    bytewise, added = _is_bytewise(tokenizer), tokenizer.get_added_tokens_decoder()
    texts = {}
    for place in set(ids):
        token = tokenizer.id_to_token(place)
        if token is None:
            continue  # the model has a token that its tokenizer does not know
        if place in added:
            texts[place] = token
        elif bytewise and all(letter in written for letter in token):
            texts[place] = bytes(written[letter] for letter in token).decode("utf-8", "backslashreplace")
        else:
            texts[place] = token.replace("▁", " ")
    return texts


def _is_bytewise(tokenizer: Tokenizer) -> bool:
    if tokenizer.decoder is None:
        return False
    decoder = json.loads(tokenizer.decoder.__getstate__())
    return "ByteLevel" in {kind.get("type") for kind in (decoder, *decoder.get("decoders", ()))}
