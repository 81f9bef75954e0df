"""The demo's data and job: the documentation that comes with every Python, and a GPT small enough for two cores."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from cli.client import Json

PROMPTS = ["The import statement", "A function is"]

_LONGEST_HEADING = 40
# Long enough to be cut into overlapping sequences, short enough that a few can be held out.
_DOCUMENT_CHARACTERS = 1500
_RULE = re.compile(r"[*=~^\"-]{3,}")


def write_corpus(path: Path) -> int:
    """Write the prose of the topics as documents, one JSON object a line, and return how many there are."""
    documents = [json.dumps({"text": text}, ensure_ascii=False) for text in _documents()]
    path.write_text("\n".join(documents) + "\n", encoding="utf-8")
    return len(documents)


def _documents() -> Iterator[str]:
    """Yield neighbouring paragraphs, each paragraph once: some topics repeat others."""
    seen: set[str] = set()
    for topic in topics.values():
        paragraphs: list[str] = []
        for paragraph in _paragraphs(topic):
            if paragraph not in seen:
                seen.add(paragraph)
                paragraphs.append(paragraph)
            if sum(map(len, paragraphs)) > _DOCUMENT_CHARACTERS:
                yield "\n".join(paragraphs)
                paragraphs = []
        if paragraphs:
            yield "\n".join(paragraphs)


def _paragraphs(topic: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", topic.strip("\n")):
        lines = (line for line in block.splitlines() if not _RULE.fullmatch(line.strip()))
        # Quotes and stars are what is left of markup here: around code, emphasis, list items.
        text = " ".join(" ".join(lines).replace('"', "").replace("*", "").split())
        # Deeper indented than a list is code, short is a heading, and the model is to learn English.
        if len(text) > _LONGEST_HEADING and not block.startswith("   ") and "::=" not in block:
            yield text


def demo_spec(dataset_id: str) -> Json:
    """Return the demo's job: under 30 s an epoch on two idle cores."""
    return {
        "name": "docs-gpt",
        "dataset": dataset_id,
        "validation": {"fraction": 0.08},
        "tokenizer": {"train": {"vocab_size": 2048}},
        "model": {
            "config": {
                **{"model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256},
                # Three epochs are too few to learn anything by heart.
                **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
            }
        },
        # Sequences overlap: from so little text every place is worth three looks an epoch.
        "sequence": {"max_length": 128, "stride": 42},
        "training": {
            **{"epochs": 3, "batch_size": 8, "learning_rate": 1e-3},
            **{"lr_scheduler": "cosine", "warmup_ratio": 0.05},
        },
        "samples": {"prompts": PROMPTS, "max_new_tokens": 40, "temperature": 0.6},
        "tags": {"made-by": "demo"},
    }
