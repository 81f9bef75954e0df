"""A tokenizer without transformers reads as transformers' own: texts, conversations, and what its tokens stand for."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from core.dataset_files import Row
from core.errors import InvalidInput
from core.job_spec import TokenizerTraining
from core.tokenizer_source import TokenizerSource
from core.tokens import chat
from core.tokens.plain_tokenizer import PlainTokenizer, open_tokenizer, piece_texts
from core.tokens.vocabulary import of_bytes
from tests.chinese import CHAPTERS
from tests.worker.training.tiny import prepared
from worker.training import tokenizer

CHATML = (
    "{%- for m in messages %}\n  {{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}\n"
    "{%- endfor %}{% if add_generation_prompt %}{% generation %}<|im_start|>assistant\n{% endgeneration %}{% endif %}"
)
ODDITIES = (
    "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m | tojson }}{{ eos_token }}"
    "{{ bos_token }}{% set ns = namespace(x=1) %}{{ ns.x }}{% if tools %}T{% endif %}{% endfor %}"
)
MESSAGES = [
    {"role": "system", "content": "be <good>"},
    {"role": "user", "content": '道 é "x" '},
    {"role": "assistant", "content": " yes\n"},
]


def _saved(folder: Path, template: str | None) -> Path:
    made = prepared(tokenizer.learn([[text] for text in CHAPTERS], rows=len(CHAPTERS), vocab_size=500))
    words = tokenizer.for_transformers(made, max_length=64)
    words.chat_template = template
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [chat.DEFAULT_TEMPLATE, CHATML, ODDITIES, None])
def test_a_folders_tokenizer_is_that_which_transformers_loads(template: str | None, tmp_path: Path) -> None:
    folder = _saved(tmp_path, template)
    theirs, ours = AutoTokenizer.from_pretrained(folder), open_tokenizer(TokenizerSource(folder=folder), [])
    chat.ensure_template(theirs)
    assert (ours.eos_token, ours.eos_token_id) == (theirs.eos_token, theirs.eos_token_id)
    assert tokenizer.identity(ours) == tokenizer.identity(theirs)
    for prompt in (True, False):
        options = {"tokenize": False, "add_generation_prompt": prompt}
        assert ours.apply_chat_template(MESSAGES, **options) == theirs.apply_chat_template(MESSAGES, **options)


def test_a_template_that_refuses_does_so_here_too() -> None:
    words = PlainTokenizer(of_bytes(), {"eos_token": "<|endoftext|>"}, "{{ raise_exception('no system here') }}")
    with pytest.raises(InvalidInput, match="no system here"):
        chat.spans(words, MESSAGES, where="Row 1")


def test_a_template_reaches_nothing_of_this_process() -> None:
    for escape in ("{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"):
        words = PlainTokenizer(of_bytes(), {"eos_token": "<|endoftext|>"}, escape)
        with pytest.raises(InvalidInput, match="refuses this conversation"):
            chat.spans(words, MESSAGES, where="Row 1")


def test_one_to_be_learnt_is_the_trainers_from_the_same_rows() -> None:
    asked = TokenizerTraining(vocab_size=400, special_tokens=["<|题|>"])
    ours = open_tokenizer(TokenizerSource(learn=asked), [Row(text=f"<|题|>{text}") for text in CHAPTERS])
    theirs = prepared(tokenizer.learn([[text] for text in CHAPTERS], rows=1, vocab_size=400, special_tokens=["<|题|>"]))
    assert ours.backend_tokenizer.to_str() == theirs.to_str()


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no tokenizer\.json"):
        open_tokenizer(TokenizerSource(folder=tmp_path), [])


def test_tokens_are_shown_as_what_they_stand_for() -> None:
    made = of_bytes()
    ids = [*"a 道\n".encode(), 256, 999]
    assert [piece_texts(made, ids).get(token) for token in ids] == [
        "a", " ", "\\xe9", "\\x81", "\\x93", "\n", "<|endoftext|>", None,
    ]  # fmt: skip
