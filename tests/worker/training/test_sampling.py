"""Samples: they follow from seed and epoch, and leave training alone."""

import torch

from core.job_spec import Samples
from core.tokens.vocabulary import of_bytes
from tests.worker.training.tiny import VOCABULARY, learner
from worker.training import sampling, tokenizer
from worker.training.build import Learner


def byte_learner() -> tuple[Learner, tokenizer.PreTrainedTokenizerFast]:
    tiny = learner()
    tiny.model.resize_token_embeddings(257)
    assert VOCABULARY < 257
    return tiny, tokenizer.for_transformers(of_bytes(), max_length=128)


def test_texts_follow_from_seed_epoch_and_prompt() -> None:
    tiny, words = byte_learner()
    samples = Samples(prompts=["ab", "ab"], max_new_tokens=20)

    def write(seed: int, epoch: int) -> list[tuple[str, str]]:
        torch.rand(3)
        return list(sampling.write(tiny, words, samples, seed=seed, epoch=epoch))

    first = write(1, 1)
    assert first == write(1, 1)
    assert first != write(1, 2)
    assert first != write(2, 1)
    assert first[0][1] != first[1][1]


def test_the_model_is_in_training_mode_again() -> None:
    tiny, words = byte_learner()
    list(sampling.write(tiny, words, Samples(prompts=["a"], max_new_tokens=1), seed=0, epoch=1))
    assert all(module.training for module in tiny.model.modules())


def test_long_prompts_empty_prompts_and_more_tokens_than_positions() -> None:
    tiny, words = byte_learner()
    samples = Samples(prompts=["x" * 5000, ""], max_new_tokens=100)
    assert [prompt for prompt, _ in sampling.write(tiny, words, samples, seed=0, epoch=1)] == samples.prompts
    [(_, text)] = sampling.write(tiny, words, Samples(prompts=["yz"], max_new_tokens=2048), seed=0, epoch=1)
    assert text


def test_nul_is_never_written() -> None:
    tiny, words = byte_learner()
    tiny.model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[97, 0, 98, 256]])], dim=1)
    [(_, text)] = sampling.write(tiny, words, Samples(prompts=["a"]), seed=0, epoch=1)
    assert text == "a\ufffdb"
