"""The demo's data and job: the documentation that comes with every Python, and a GPT small enough for two cores."""

import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

from cli.client import Json

PROMPTS = ["The import statement", "A class is"]

_RULE = re.compile(r"[*=~^\"-]{3,}")


def write_corpus(path: Path) -> None:
    """Write the prose of the topics, each paragraph once and on one line, with blank lines between them."""
    path.write_text("\n\n".join(dict.fromkeys(_paragraphs())) + "\n", encoding="utf-8")


def _paragraphs() -> Iterator[str]:
    for topic in topics.values():
        for block in re.split(r"\n\s*\n", topic.strip("\n")):
            lines = [line.strip() for line in block.splitlines() if not _RULE.fullmatch(line.strip())]
            # Indented deeper than a list is code, and the model is to learn English.
            if lines and not block.startswith("   ") and "::=" not in block:
                yield " ".join(lines)


def demo_spec(dataset_id: str) -> Json:
    """Return the demo's job."""
    return {
        "name": "docs-gpt",
        "dataset": dataset_id,
        "tokenizer": {"train": {"vocab_size": 2048}},
        "model": {
            "config": {
                **{"model_type": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256},
                # Three passes are too few to learn anything by heart.
                **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
            }
        },
        "sequence": {"max_length": 128},
        "training": {
            **{"epochs": 3, "batch_size": 8, "learning_rate": 2e-3},
            **{"lr_scheduler": "cosine", "warmup_ratio": 0.05, "adam_beta2": 0.98},
        },
        "samples": {"prompts": PROMPTS, "max_new_tokens": 40},
        "tags": {"made-by": "demo"},
    }
