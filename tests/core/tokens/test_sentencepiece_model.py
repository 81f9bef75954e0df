"""A SentencePiece model read without SentencePiece gives the same ids, and the same text back."""

from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from core.errors import InvalidInput
from core.tokens import sentencepiece_model as reader
from core.tokens.plain_tokenizer import PlainTokenizer
from core.tokens.vocabulary import encode
from tests.chinese import CHAPTERS
from tests.sentencepieces import sentencepiece_model
from tests.worker.training.tiny import texts

_TEXTS = [
    *CHAPTERS[:4],
    "the import statement",
    "中文 and English 混合，１２３ ＡＢＣ",
    "a  b   c",
    "上善若水。\n水善利万物",
    "unknown: ☃ 🙂 ж",
    "",
]
_KINDS: list[dict[str, Any]] = [
    {"model_type": "unigram"},
    {"model_type": "bpe"},
    {"model_type": "bpe", "byte_fallback": True, "vocab_size": 700},
    {"model_type": "unigram", "byte_fallback": True, "vocab_size": 700},
    {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    {"model_type": "unigram", "add_dummy_prefix": False},
    {"model_type": "unigram", "user_defined_symbols": ["<sep>", "非常"]},
]


@pytest.mark.parametrize("kind", _KINDS, ids=str)
def test_ids_are_those_of_sentencepiece(kind: dict[str, Any], tmp_path: Path) -> None:
    path = sentencepiece_model(tmp_path, [*CHAPTERS, *texts(60)], **kind)
    theirs = SentencePieceProcessor(model_file=str(path))
    ours, end_of_text = reader.read(path.read_bytes())
    assert end_of_text == "</s>"
    assert ours.get_vocab_size() == theirs.get_piece_size()
    for text in [*_TEXTS, " 道", "  two before", "a<sep>b 道可道，非常道"]:
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text), text
        if theirs.unk_id() not in ids:
            assert ours.decode(ids, skip_special_tokens=False) == theirs.decode(ids), text


def test_what_the_model_keeps_comes_back(tmp_path: Path) -> None:
    kind = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    path = sentencepiece_model(tmp_path, CHAPTERS, model_type="bpe", vocab_size=700, **kind)
    ours, _ = reader.read(path.read_bytes())
    for text in [*_TEXTS, "  two before", "line\n\n  indented"]:
        assert ours.decode(ours.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_what_comes_behind_other_text_gets_no_mark_of_a_beginning(tmp_path: Path) -> None:
    ours, end = reader.read(sentencepiece_model(tmp_path, CHAPTERS).read_bytes())
    words = PlainTokenizer(ours, {"eos_token": str(end)})
    for text in ("非常道。", " 非常道。", "\n非"):
        before, after = encode(words, ["道可道。", text], [False, True])
        assert before + after == ours.encode(f"道可道。{text}").ids, text


def _changed(path: Path, **fields: Any) -> bytes:
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    for name, value in fields.items():
        setattr(model.trainer_spec, name, value)
    return model.SerializeToString()


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = sentencepiece_model(tmp_path, CHAPTERS)
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    model.pieces.add(piece=model.pieces[5].piece)
    cases = {
        "neither a tokenizer.json nor a SentencePiece": b"\x80\x04\x95pickle of something",
        "no vocabulary": b"",
        "words or characters": _changed(path, model_type=3),
        "where words end": _changed(path, treat_whitespace_as_suffix=True),
        "a token twice": model.SerializeToString(),
        "does not know": _changed(path, unk_id=10**6),
    }
    for said, content in cases.items():
        with pytest.raises(InvalidInput, match=said):
            reader.read(content)
