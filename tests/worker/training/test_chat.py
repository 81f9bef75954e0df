"""Conversations: what is trained on is what a client of the checkpoint asks with, and what should be answered."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from core.errors import DataError
from core.tokens import chat, vocabulary
from core.tokens.arrays import Tokens
from tests.worker.training.tiny import assignment, last_checkpoint, of, prepared, run, texts, write_rows
from worker.training import tokenizer
from worker.training.cached import tokenized
from worker.training.facts import Planned, Sample
from worker.training.rows import look_through
from worker.training.token_cache import TokenCache

Messages = list[dict[str, str]]

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def turns(*contents: str, system: str | None = None) -> Messages:
    """A conversation in which user and assistant take turns."""
    roles = ["user", "assistant"] * len(contents)
    told = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system is not None else []) + told


def words_with(template: str | None = None, *, learnt: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, or a learnt one, with a chat template."""
    made = vocabulary.of_bytes()
    if learnt:
        # Newlines and spaces become tokens of more than one, so that a cut among them would show.
        made = prepared(tokenizer.learn([[*texts(50), "a\n\n\n  b \n\n"] * 9], rows=1, vocab_size=400))
    words = tokenizer.for_transformers(made, max_length=128)
    words.chat_template = template
    chat.ensure_template(words)
    return words


def read(folder: Path, conversations: list[Messages], words: PreTrainedTokenizerFast) -> Tokens:
    """The conversations as they are trained on."""
    file = write_rows(folder / "chat.jsonl", [{"messages": messages} for messages in conversations])
    cache = TokenCache(folder / "cache", max_bytes=2**30)
    return prepared(tokenized(file, prepared(look_through(file)), words, cache)).tokens


def heard(tokens: Tokens, words: PreTrainedTokenizerFast) -> str:
    """The text that carries loss; what does not is a dot."""
    shown = ["." if label == -100 else words.decode([label]) for label in tokens.labels.tolist()]
    return "".join(shown)


def test_loss_is_on_the_assistants_turns_and_on_what_closes_them(tmp_path: Path) -> None:
    words = words_with()
    tokens = read(tmp_path, [turns("hi", "yo", "bye", "ciao", "left out", system="be good")], words)
    before, between = "<|system|>\nbe good\n<|user|>\nhi\n<|assistant|>\n", "<|user|>\nbye\n<|assistant|>\n"
    assert words.decode(tokens.ids) == f"{before}yo<|endoftext|>{between}ciao<|endoftext|>"
    assert heard(tokens, words) == "." * len(before) + "yo<|endoftext|>" + "." * len(between) + "ciao<|endoftext|>"


def test_what_answers_nothing_is_context(tmp_path: Path) -> None:
    words = words_with()
    messages = [{"role": "assistant", "content": "hello"}, *turns("hi", "yo")]
    tokens = read(tmp_path, [messages], words)
    assert heard(tokens, words).lstrip(".") == "yo<|endoftext|>"
    assert words.decode(tokens.ids).startswith("<|assistant|>\nhello<|endoftext|><|user|>")


_CONTENT = st.text(st.sampled_from("ab' .\n\t\u3000\u00a0东<|>:1"), max_size=12) | st.sampled_from(
    ["", " ", "<|endoftext|>", "<|assistant|>\n", "the import statement", "\n\n  x  \n"]
)


@pytest.mark.parametrize("learnt", [False, True], ids=["bytes", "learnt"])
@settings(max_examples=60, deadline=None)
@given(contents=st.lists(_CONTENT, min_size=2, max_size=6), system=st.none() | _CONTENT)
def test_generation_sees_the_ids_that_were_trained_on(
    learnt: bool, contents: list[str], system: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chat")
    words_with(learnt=learnt).save_pretrained(folder / "model")
    words = AutoTokenizer.from_pretrained(folder / "model")
    messages = turns(*contents, system=system)
    tokens = read(folder, [messages], words)
    ids, labels, end = tokens.ids.tolist(), tokens.labels.tolist(), 0
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            asked = words.apply_chat_template(messages[:place], add_generation_prompt=True, return_dict=False)
            told = words.apply_chat_template(messages[: place + 1], return_dict=False)
            assert ids[: len(told)] == told
            assert ids[: len(asked)] == asked
            assert labels[end : len(asked)] == [-100] * (len(asked) - end)
            assert labels[len(asked) : len(told)] == ids[len(asked) : len(told)]
            assert told[-1] == words.eos_token_id
            end = len(told)
    assert len(ids) == end


def test_the_tokenizers_own_template_is_used_and_an_end_of_text_added_where_it_has_none(tmp_path: Path) -> None:
    words = words_with(CHATML)
    tokens = read(tmp_path, [turns("hi", "yo", "bye", "ciao")], words)
    assert words.chat_template == CHATML
    assert heard(tokens, words).replace(".", "") == "yo<|im_end|>\nciao<|im_end|>\n<|endoftext|>"


def test_a_template_that_closes_a_turn_with_the_end_of_text_gets_no_other(tmp_path: Path) -> None:
    words = words_with(CHATML)
    words.add_special_tokens({"eos_token": "<|im_end|>"})
    tokens = read(tmp_path, [turns("hi", "yo <|im_end|> yo")], words)
    assert heard(tokens, words).replace(".", "") == "yo <|im_end|> yo<|im_end|>\n"


def test_a_template_that_refuses_a_row_is_a_data_error_that_names_it(tmp_path: Path) -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    rows = [turns("hi", "yo"), turns("hi", "yo", system="be good")]
    with pytest.raises(DataError, match=r"Row 2 of chat\.jsonl: .*refuses this conversation: no system here") as error:
        read(tmp_path, rows, words_with(template))
    assert "first user's message" in error.value.hint
    with pytest.raises(DataError, match=r"Row 1 of chat\.jsonl: .*template refuses"):
        read(tmp_path, rows, words_with("{{ messages[0].nothing.at_all }}"))


@pytest.mark.parametrize(
    "template",
    [
        # Only the last turn is written in full, as templates do that hide earlier thoughts.
        "{% for m in messages %}{{ m['role'] + ':' }}{% if loop.last %}{{ m['content'] }}{% endif %};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
        # What the assistant said is left out once the user has answered.
        "{% for m in messages %}{{ m['role'] + ':' }}{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}"
        "{% endif %};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
        # The generation prompt is not how an answer begins.
        "{% for m in messages %}{{ m['content'] + ';' }}{% endfor %}{% if add_generation_prompt %}answer:{% endif %}",
    ],
)
def test_a_template_that_rewrites_what_it_wrote_is_a_data_error(tmp_path: Path, template: str) -> None:
    with pytest.raises(DataError, match=r"Row 1 of chat\.jsonl: .*another way once that message is there"):
        read(tmp_path, [turns("hi", "yo", "bye", "ciao")], words_with(template))


def test_a_run_on_conversations_leaves_a_checkpoint_that_can_be_asked(tmp_path: Path) -> None:
    rows: list[Any] = [{"messages": turns(text, "yes", "no", text, system="s")} for text in texts(6)]
    spec = {"tokenizer": "bytes", "sequence": {"max_length": 512}, "samples": {"prompts": ["a"]}}
    facts = run(assignment(tmp_path, rows, training={"epochs": 1}, **spec))
    [plan] = of(facts, Planned)
    assert plan.tokens_per_epoch == sum(len(text) + len("yes") + 2 for text in texts(6))
    assert len(of(facts, Sample)) == 1
    folder = last_checkpoint(facts) / "model"
    words = AutoTokenizer.from_pretrained(folder)
    assert words.chat_template == chat.DEFAULT_TEMPLATE
    prompt = words.apply_chat_template(turns("hi"), add_generation_prompt=True, tokenize=False)
    assert prompt == "<|user|>\nhi\n<|assistant|>\n"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == words.eos_token_id, "where a trained answer ends, generate stops"


def test_a_tokenizer_learnt_from_conversations_knows_the_marks_of_their_turns(tmp_path: Path) -> None:
    rows: list[Any] = [{"messages": turns(text, text)} for text in texts(40)]
    facts = run(assignment(tmp_path, rows, tokenizer={"train": {"vocab_size": 300}}, training={"epochs": 1}))
    words = AutoTokenizer.from_pretrained(last_checkpoint(facts) / "model")
    ids = words.encode("<|assistant|>\n", add_special_tokens=False)
    assert [words.decode([token]) for token in ids] == ["<|", "assistant", "|>", "\n"]
    vocabulary = set(words.get_vocab()) - {"<|endoftext|>"}
    assert not [token for token in vocabulary if "endof" in token], "the end of text is one token, not made of others"
