"""SentencePiece models, trained on the spot."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceTrainer


def sentencepiece_model(folder: Path, texts: Iterable[str], **options: Any) -> Path:
    """Train a model on texts and return its file."""
    made = BytesIO()
    defaults = {"vocab_size": 400, "character_coverage": 1.0, "minloglevel": 2, "hard_vocab_limit": False}
    SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=made, **defaults | options)
    path = folder / "chinese.model"
    path.write_bytes(made.getvalue())
    return path
