"""The model and its optimizer: from the spec, or from the folder of an earlier checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)
from transformers.activations import NewGELUActivation

from core.job_spec import Gpt2Config, ModelConfig, Training
from worker.training.errors import DataError
from worker.training.randomness import reseed
from worker.training.token_loss import TokenLoss


@dataclass(frozen=True)
class Learner:
    """What is trained, and what trains it."""

    model: PreTrainedModel
    token_loss: TokenLoss
    optimizer: torch.optim.Optimizer
    device: torch.device


def new_model(
    config: ModelConfig, *, vocab_size: int, max_length: int, end_of_text: int | None, seed: int
) -> PreTrainedModel:
    """Build a model with fresh float32 weights that follow from the seed alone."""
    # No pad_token_id: Llama would freeze that token's embedding at zero, and it is the end of text here.
    tokens = {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": None}
    shape: dict[str, Any] = (
        config.model_dump(exclude={"model_type"}, exclude_none=True) | tokens | {"vocab_size": vocab_size}
    )
    reseed(seed, "weights")
    model: PreTrainedModel
    if isinstance(config, Gpt2Config):
        model = GPT2LMHeadModel(GPT2Config(**shape, n_positions=max_length))
    else:
        rope = {"rope_type": "default", "rope_theta": shape.pop("rope_theta")}
        model = LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=rope, max_position_embeddings=max_length))
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text
    )
    return model


def load_model(folder: Path, *, max_length: int) -> PreTrainedModel:
    """Load a checkpoint's `model/` folder as float32: safetensors only, never code that came with it.

    Raises DataError where the model has fewer positions than `max_length`.
    """
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    positions = model.config.max_position_embeddings
    if positions < max_length:
        raise DataError(
            f"The model has {positions} positions, fewer than sequence.max_length ({max_length}).",
            f"Set sequence.max_length to {positions} or less.",
        )
    return model


def pick_device(wanted: str) -> torch.device:
    """Return the device: `auto` is the GPU where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def make_learner(model: PreTrainedModel, training: Training, device: torch.device) -> Learner:
    """Put a model on its device, in training mode, with its optimizer."""
    _fuse_gelu(model)
    model.to(device)  # type: ignore[arg-type]
    model.train()
    dtype = _compute_dtype(training.precision, device)
    return Learner(
        model=model,
        token_loss=TokenLoss(model, device=device, dtype=dtype),
        optimizer=_optimizer(model, training),
        device=device,
    )


def _fuse_gelu(model: PreTrainedModel) -> None:
    """Compute `gelu_new` in one kernel instead of eight: the same function, and a tenth of a small GPT-2's step."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def _compute_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _optimizer(model: PreTrainedModel, training: Training) -> torch.optim.AdamW:
    """AdamW in one kernel; no weight decay on biases and norms, which are the parameters of one dimension."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (training.adam_beta1, training.adam_beta2)
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, eps=training.adam_epsilon, fused=True)
