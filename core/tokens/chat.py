"""Conversations as the model reads them: rendered by a chat template, with loss on what the assistant says.

The template is the tokenizer's own, or else DEFAULT_TEMPLATE, which goes into every checkpoint with the tokenizer. So
whoever calls `apply_chat_template(messages, add_generation_prompt=True)` on the downloaded folder gives the model
exactly the ids that it was trained to answer.

Each turn of the assistant is cut in two where the model takes over: after the generation prompt. What comes before
(system, users, marks) carries no loss; what comes after does: the answer and whatever closes it, since a model that
never learnt to close a turn never stops. Both are tokenized by themselves, because they are so when the model is used:
the prompt is encoded before there is an answer. Over the other cut, between a closed turn and what follows, no token
reaches either: templates put a special token or a newline there. A row ends with the last answer. Where that turn is
not closed by the tokenizer's end of text, at which `generate` stops, an end of text follows, and carries loss too.
"""

from typing import Any

from core.errors import DataError
from core.tokens.vocabulary import Words

Message = dict[str, str]

# Marks of plain text, so that it fits any vocabulary; its one special token is the end of text that every tokenizer
# has, and `generate` stops there. Contents are stripped, and between a newline and what is no space every byte-level
# tokenizer cuts: so the ids of a whole conversation are those of its pieces.
DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + (message['content'] | trim) }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def ensure_template(words: Any) -> None:
    """Give a tokenizer that has no chat template the default one. Whatever saves it then, saves that too."""
    if not words.chat_template:
        words.chat_template = DEFAULT_TEMPLATE


def spans(words: Words, messages: list[Message], *, where: str) -> list[tuple[str, bool]]:
    """Return a conversation, up to its last answer, as texts and whether they carry loss.

    A first message of the assistant answers nothing, and is read as context. Raises DataError, naming the row, where
    the template refuses the conversation, or writes a turn otherwise once another follows.
    """
    told, found = "", list[tuple[str, bool]]()
    for place in range(1, len(messages)):
        if messages[place]["role"] != "assistant":
            continue
        prompt = _render(words, messages[:place], where=where, add_generation_prompt=True)
        answered = _render(words, messages[: place + 1], where=where, add_generation_prompt=False)
        if not prompt.startswith(told) or not answered.startswith(prompt):
            raise DataError(
                f"{where}: the tokenizer's chat template writes what comes before message {place + 1} in another way "
                "once that message is there, so the model could not be asked for it as it would be trained.",
                "Use a tokenizer whose chat template only ever adds to what it wrote, or split this row into "
                "conversations with one answer each.",
            )
        found += [(prompt[len(told) :], False), (answered[len(prompt) :], True)]
        told = answered
    return found


def _render(words: Words, messages: list[Message], *, where: str, add_generation_prompt: bool) -> str:
    try:
        return str(words.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt))
    except Exception as error:  # a template is a program, and can fail in any way
        raise DataError(
            f"{where}: the tokenizer's chat template refuses this conversation: {error}",
            "Write the row as the template wants it (some know no system role: put that text into the first user's "
            "message), or use a tokenizer with another template.",
        ) from error
