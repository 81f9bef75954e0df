"""What the files of a model from elsewhere may be: said before transformers reads them, and without torch."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from core.model_shapes import MODEL_TYPES

CONFIG = "config.json"
# With any of these in a config transformers would run code, or kernels, from elsewhere.
_CODE = ("auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "_attn_implementation_internal")


class Refusal(NamedTuple):
    """Why a model is not loaded, and what to do about it."""

    message: str
    hint: str


def refuse_config(folder: Path) -> Refusal | None:
    """Say why the model whose JSON files lie in a folder cannot be trained; None where nothing speaks against it."""
    if not (folder / CONFIG).is_file():
        hint = "Name one that `AutoModelForCausalLM.from_pretrained` loads: with config.json and safetensors."
        return Refusal("The model has no config.json.", hint)
    for name in (CONFIG, "tokenizer_config.json"):
        document = _read(folder / name) if (folder / name).is_file() else {}
        if document is None:
            return Refusal(f"The model's {name} is not a JSON object.", "Name another model.")
        if code := [key for key in _CODE if document.get(key)]:
            hint = "No code that comes with a model is ever run here: name one that transformers itself knows."
            return Refusal(f"The model brings code of its own ({code[0]} in {name}).", hint)
    config = _read(folder / CONFIG) or {}
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        return Refusal(
            f"A model of the type {str(kind)[:100]!r} cannot be trained here.",
            f"Name a model of one of these types: {', '.join(sorted(MODEL_TYPES))}.",
        )
    if config.get("quantization_config"):
        return Refusal("The model's weights are quantized.", "Name the model that it was quantized from.")
    return None


def refuse_weights(folder: Path) -> Refusal | None:
    """Say why the weights in a folder are not loaded; None where they are safetensors."""
    if any(folder.glob("*.safetensors")):
        return None
    return Refusal(
        "The model has no weights in safetensors: a pickle could run code, and is never loaded.",
        "Name a revision or a copy of it whose weights are safetensors.",
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
