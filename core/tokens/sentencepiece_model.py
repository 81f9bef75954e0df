"""A SentencePiece model, such as Chinese GPT models use, as a tokenizer of the `tokenizers` library: the same ids.

The file is a protocol buffer: data, and nothing that could run. What its normalizer does not keep (with most models
runs of spaces, full-width letters) does not come back from the ids either.
"""

from collections.abc import Iterator

from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]  # made at import
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from core.errors import InvalidInput

_UNIGRAM, _BPE = 1, 2
_CONTROL, _USER_DEFINED = 3, 4
_MOST_PIECES = 2**20
_LONGEST_PIECE = 1000
_SPACE = "▁"


def read(content: bytes) -> tuple[Tokenizer, str | None]:
    """Return the tokenizer of a model, and the token that ends its texts, if it names one.

    Raises InvalidInput where the bytes are no such model, or one of words or single characters.
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise InvalidInput(
            "The file is neither a tokenizer.json nor a SentencePiece model: upload the very file that the model of "
            "this tokenizer came with."
        ) from error
    _check(model)
    tokenizer = Tokenizer(_unigram(model) if model.trainer_spec.model_type == _UNIGRAM else _bpe(model))
    _set_spaces(tokenizer, model)
    tokenizer.add_tokens(
        [
            # Control tokens are no text; what the user defined is, and is found in it as the model sees it.
            AddedToken(piece.piece, special=piece.type == _CONTROL, normalized=piece.type != _CONTROL)
            for piece in model.pieces
            if piece.type in (_CONTROL, _USER_DEFINED)
        ]
    )
    end = model.trainer_spec.eos_id
    return tokenizer, model.pieces[end].piece if 0 <= end < len(model.pieces) else None


def _check(model: ModelProto) -> None:
    pieces = model.pieces
    if not pieces:
        raise InvalidInput("The file holds no vocabulary: it is no SentencePiece model.")
    if len(pieces) > _MOST_PIECES:
        raise InvalidInput(f"The vocabulary has {len(pieces):,} tokens; {_MOST_PIECES:,} are the most that is read.")
    if model.trainer_spec.model_type not in (_UNIGRAM, _BPE):
        raise InvalidInput("This SentencePiece model is one of words or characters; only unigram and BPE are read.")
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise InvalidInput("This SentencePiece model marks where words end; only those that mark beginnings are read.")
    names = {piece.piece for piece in pieces}
    if len(names) < len(pieces) or "" in names or max(map(len, names)) > _LONGEST_PIECE:
        raise InvalidInput("The vocabulary holds a token twice, an empty or an endless one: the file is damaged.")
    if not 0 <= model.trainer_spec.unk_id < len(pieces):
        raise InvalidInput("The vocabulary has no token for what it does not know: the file is damaged.")


def _unigram(model: ModelProto) -> models.Unigram:
    scores = [(piece.piece, piece.score) for piece in model.pieces]
    return models.Unigram(scores, unk_id=model.trainer_spec.unk_id, byte_fallback=model.trainer_spec.byte_fallback)


def _bpe(model: ModelProto) -> models.BPE:
    trainer = model.trainer_spec
    vocabulary = {piece.piece: place for place, piece in enumerate(model.pieces)}
    return models.BPE(
        vocab=vocabulary,
        merges=[pair for _, _, _, pair in sorted(_merges(model, vocabulary))],
        unk_token=model.pieces[trainer.unk_id].piece,
        fuse_unk=True,
        byte_fallback=trainer.byte_fallback,
    )


def _merges(model: ModelProto, vocabulary: dict[str, int]) -> Iterator[tuple[float, int, int, tuple[str, str]]]:
    """Yield every pair of tokens that makes a token; the one with the best score is merged first."""
    for piece in model.pieces:
        for cut in range(1, len(piece.piece)):
            left, right = piece.piece[:cut], piece.piece[cut:]
            if left in vocabulary and right in vocabulary:
                yield -piece.score, vocabulary[left], vocabulary[right], (left, right)


def _set_spaces(tokenizer: Tokenizer, model: ModelProto) -> None:
    """Let the tokenizer treat spaces, and whatever else the model normalizes, as SentencePiece does."""
    rules = model.normalizer_spec
    steps: list[normalizers.Normalizer] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r" +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
        # Written as the mark of a beginning, which is put before a text that has none.
        steps.append(normalizers.Replace(Regex(r"\A "), _SPACE if rules.add_dummy_prefix else ""))
    elif rules.add_dummy_prefix:
        # A text that begins with a space gets the mark of a beginning too.
        steps.append(normalizers.Replace(Regex(r"\A "), f"{_SPACE} "))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "first" if rules.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme, split=False)
    back: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if rules.add_dummy_prefix:
        back.append(decoders.Strip(content=" ", left=1, right=0))
    tokenizer.decoder = decoders.Sequence(back)
