"""Chinese: short under the default tokenizer, exact there and back, also when a checkpoint is loaded as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.tokens import sentencepiece_model as reader
from core.tokens.vocabulary import encode
from tests.chinese import CHAPTERS, TEXT
from tests.sentencepieces import sentencepiece_model
from tests.worker.training.tiny import GPT2, assignment, last_checkpoint, prepared, run
from worker.training import tokenizer
from worker.training.assignment import TokenizerFile

_ODD = "道可道，非常道。\n\n  “全角”（ＡＢＣ）１２３ 🙂 mixed 中文 text\t。"


# What most SentencePiece models leave out: they write full-width commas as others, and runs of spaces as one.
_KEEPS_ALL = {
    **{"model_type": "bpe", "vocab_size": 700, "byte_fallback": True},
    **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
}


def learnt(vocab_size: int = 4096) -> "tokenizer.Tokenizer":
    return prepared(tokenizer.learn([[text] for text in CHAPTERS], rows=len(CHAPTERS), vocab_size=vocab_size))


def test_the_default_makes_words_of_chinese_text() -> None:
    words = tokenizer.for_transformers(learnt(), max_length=8)
    [ids] = encode(words, [TEXT], [False])
    assert len(ids) < 0.5 * len(TEXT), "most tokens are words of several characters"
    half = prepared(tokenizer.learn([[text] for text in CHAPTERS[::2]], rows=8, vocab_size=4096))
    [ids] = encode(tokenizer.for_transformers(half, max_length=8), ["".join(CHAPTERS[1::2])], [False])
    assert len(ids) < 2 * len("".join(CHAPTERS[1::2])), "of what was not learnt a character has three bytes"


@pytest.mark.parametrize("text", [TEXT, _ODD])
@pytest.mark.parametrize("vocab_size", [257, 1000, 4096])
def test_chinese_text_comes_back_as_it_was(text: str, vocab_size: int) -> None:
    words = tokenizer.for_transformers(learnt(vocab_size), max_length=8)
    [ids] = encode(words, [text], [False])
    assert words.decode(ids) == text


def test_learning_is_the_same_to_the_byte_with_any_hash_seed_and_number_of_threads() -> None:
    # Without transformers, whose import takes seconds: what learns is the same.
    program = """if True:
        from core.job_spec import TokenizerTraining
        from core.dataset_files import Row
        from core.tokenizer_source import TokenizerSource
        from core.tokens.plain_tokenizer import open_tokenizer
        from tests.chinese import CHAPTERS
        rows = [Row(text=text) for text in CHAPTERS]
        made = open_tokenizer(TokenizerSource(learn=TokenizerTraining()), rows)
        print(made.backend_tokenizer.to_str(), end="")
    """
    made = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
        ).stdout
        for seed, threads in (("1", "1"), ("2", "4"))
    }
    assert made == {learnt().to_str().encode()}


@pytest.mark.parametrize("kind", ["learnt", "tokenizer.json", "sentencepiece"])
def test_a_checkpoints_tokenizer_reads_as_the_trainer_did(kind: str, tmp_path: Path) -> None:
    wanted = {"train": {"special_tokens": ["<|题|>"]}} if kind == "learnt" else {"upload": "tok_1"}
    job = assignment(
        tmp_path,
        CHAPTERS,
        tokenizer=wanted,
        model={"config": GPT2},
        training={"epochs": 1},
        samples={"prompts": ["道"], "max_new_tokens": 2},
    )
    if kind != "learnt":
        path, end = tmp_path / "tokenizer.json", "<|endoftext|>"
        if kind == "sentencepiece":
            made, end = sentencepiece_model(tmp_path, CHAPTERS, **_KEEPS_ALL), "</s>"
            reader.read(made.read_bytes())[0].save(str(path))
        else:
            learnt(600).save(str(path))
        job = job.model_copy(update={"tokenizer": TokenizerFile(path=path, end_of_text=end)})
    facts = run(job)
    loaded = AutoTokenizer.from_pretrained(last_checkpoint(facts) / "model")
    assert loaded.eos_token_id is not None
    config = json.loads((last_checkpoint(facts) / "model" / "config.json").read_text())
    assert config["vocab_size"] == len(loaded)
    assert config["eos_token_id"] == loaded.eos_token_id
    for text in [*CHAPTERS, _ODD]:
        assert loaded.decode(loaded(text, add_special_tokens=False)["input_ids"]) == text
    if kind == "learnt":
        assert loaded("<|题|>道")["input_ids"][0] == loaded.convert_tokens_to_ids("<|题|>") == 1


def test_special_tokens_are_learnt_as_one_and_the_rest_as_ever() -> None:
    facts = tokenizer.learn(
        [[text] for text in CHAPTERS], rows=len(CHAPTERS), vocab_size=600, special_tokens=["<|题|>", "<|答|>"]
    )
    made = prepared(facts)
    assert [made.token_to_id(token) for token in ("<|endoftext|>", "<|题|>", "<|答|>")] == [0, 1, 2]
    assert made.get_vocab_size() == 600
    assert made.encode("<|题|>道<|答|>").ids == [1, *made.encode("道").ids, 2]
