"""Samples: they follow from seed and epoch, and leave training alone."""

from typing import Any

import pytest
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


def write(tiny: Learner, words: Any, samples: Samples, *, seed: int = 0, epoch: int = 1) -> list[tuple[str, str]]:
    return list(sampling.write(tiny, words, samples, seed=seed, epoch=epoch, should_stop=lambda: False))


def test_texts_follow_from_seed_epoch_and_prompt() -> None:
    tiny, words = byte_learner()
    samples = Samples(prompts=["ab", "ab"], max_new_tokens=20)

    def written(seed: int, epoch: int, samples: Samples = samples) -> list[tuple[str, str]]:
        torch.rand(3)
        return write(tiny, words, samples, seed=seed, epoch=epoch)

    first = written(1, 1)
    assert first == written(1, 1)
    assert first != written(1, 2)
    assert first != written(2, 1)
    assert first[0][1] != first[1][1]
    seeded = samples.model_copy(update={"seed": 1})
    assert written(2, 1, seeded) == first, "their own seed goes before the run's"


def likeliest(tiny: Learner, words: Any, prompt: str, count: int) -> str:
    """What a model says that always takes the likeliest token, by hand."""
    tiny.model.train(mode=False)
    ids = words.encode(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(tiny.model(torch.tensor([ids])).logits[0, -1].argmax()))
    tiny.model.train()
    return str(words.decode(ids[len(prompt) :]))


@pytest.mark.parametrize(
    "choice",
    [{"temperature": 0}, {"top_k": 1}, {"top_k": 0, "top_p": 1e-6}, {"temperature": 1e-5}, {"temperature": 1e-300}],
    ids=str,
)
def test_only_the_likeliest_is_written_where_nothing_else_may_be(choice: dict[str, Any]) -> None:
    tiny, words = byte_learner()
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.mul_(8)  # a fresh model finds all about as likely
    samples = Samples.model_validate({"prompts": ["ab"], "max_new_tokens": 12, **choice})
    expected = likeliest(tiny, words, "ab", 12)
    assert [write(tiny, words, samples, seed=seed)[0][1] for seed in range(3)] == [expected] * 3
    free = Samples(prompts=["ab"], max_new_tokens=12, temperature=2.0, top_k=0)
    assert len({write(tiny, words, free, seed=seed)[0][1] for seed in range(3)}) == 3


def test_so_many_of_the_likeliest_are_chosen_from(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, words = byte_learner()
    ranks: list[int] = []
    multinomial = torch.multinomial

    def noting(probabilities: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        ranks.append(int((probabilities > 0).sum()))
        return multinomial(probabilities, *rest, **more)

    monkeypatch.setattr(torch, "multinomial", noting)
    write(tiny, words, Samples(prompts=["ab"], max_new_tokens=6, top_k=7))
    assert ranks == [7] * 6, "as many tokens as asked for, each of 7"


def test_logits_beyond_all_numbers_end_nothing() -> None:
    tiny, words = byte_learner()
    with torch.no_grad():
        tiny.model.transformer.ln_f.weight.fill_(3e38)
    assert len(write(tiny, words, Samples(prompts=["ab"], max_new_tokens=3))) == 1


def test_once_told_to_stop_it_writes_nothing_more() -> None:
    tiny, words = byte_learner()
    for looks in range(12):
        left = [True] * looks
        samples = Samples(prompts=["a", "b"], max_new_tokens=4)
        told = sampling.write(
            tiny, words, samples, seed=0, epoch=1, should_stop=lambda left=left: not (left and left.pop())
        )
        whole = write(tiny, words, samples)
        assert list(told) == whole[: looks // 5], "of each it asks after every token, and before it is told"
        assert tiny.model.training


def test_the_model_is_in_training_mode_again() -> None:
    tiny, words = byte_learner()
    write(tiny, words, Samples(prompts=["a"], max_new_tokens=1))
    assert all(module.training for module in tiny.model.modules())


def test_long_prompts_empty_prompts_and_more_tokens_than_positions() -> None:
    tiny, words = byte_learner()
    samples = Samples(prompts=["x" * 5000, ""], max_new_tokens=100)
    assert [prompt for prompt, _ in write(tiny, words, samples)] == samples.prompts
    [(_, text)] = write(tiny, words, Samples(prompts=["yz"], max_new_tokens=2048))
    assert text


def test_nul_is_never_written() -> None:
    tiny, words = byte_learner()
    tiny.model.generate = lambda input_ids, **_: torch.cat([input_ids, torch.tensor([[97, 0, 98, 256]])], dim=1)
    [(_, text)] = write(tiny, words, Samples(prompts=["a"]))
    assert text == "a\ufffdb"
