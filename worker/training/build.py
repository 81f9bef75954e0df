"""The model and its optimizer: from the spec, or from the folder of an earlier checkpoint."""

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.activations import NewGELUActivation

from core.errors import DataError
from core.job_spec import Training
from core.model_shapes import ModelConfig
from worker.training.adapter import Adapter
from worker.training.attention import IMPLEMENTATION
from worker.training.dropout import Dropout
from worker.training.errors import is_out_of_memory
from worker.training.lanes import Lanes
from worker.training.model_files import refuse_config, refuse_weights
from worker.training.randomness import reseed
from worker.training.token_loss import TokenLoss


@dataclass(frozen=True)
class Learner:
    """What is trained, and what trains it."""

    model: PreTrainedModel
    token_loss: TokenLoss
    optimizer: torch.optim.Optimizer
    device: torch.device
    scaler: torch.amp.GradScaler | None = None
    adapter: Adapter | None = None
    lanes: Lanes | None = None


def new_model(
    config: ModelConfig, *, vocab_size: int, max_length: int, end_of_text: int | None, seed: int
) -> PreTrainedModel:
    """Build a model with fresh float32 weights that follow from the seed alone."""
    shape = AutoConfig.for_model(
        config.model_type,
        **config.arguments(max_length),
        vocab_size=vocab_size,
        bos_token_id=end_of_text,
        eos_token_id=end_of_text,
        # Most models freeze the embedding of padding at zero, and that would be the end of text here.
        pad_token_id=None,
    )
    reseed(seed, "weights")
    model: PreTrainedModel = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=end_of_text, eos_token_id=end_of_text, pad_token_id=end_of_text
    )
    return model


def load_model(folder: Path, *, max_length: int) -> PreTrainedModel:
    """Load the folder of a model as float32: safetensors only, and never code that came with it.

    Raises DataError where it cannot be loaded, or has fewer positions than `max_length`.
    """
    if refusal := refuse_config(folder) or refuse_weights(folder):
        raise DataError(*refusal)
    model = _from_pretrained(folder)
    # A sliding window is switched off; within it, attention is the same without.
    positions = min(model.config.max_position_embeddings, getattr(model.config, "sliding_window", None) or math.inf)
    if positions < max_length:
        raise DataError(
            f"The model has {positions} positions, fewer than sequence.max_length ({max_length}).",
            f"Set sequence.max_length to {positions} or less.",
        )
    _thaw_padding(model)
    return model


def _from_pretrained(folder: Path) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=IMPLEMENTATION,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Whatever transformers makes of files that it cannot use.
        message = f"The model's files cannot be loaded: {type(error).__name__}: {str(error)[:300]}"
        raise DataError(message, "Name another model, or another revision of it.") from error
    model: PreTrainedModel
    model, report = loaded
    if missing := report["missing_keys"]:
        raise DataError(
            f"The model's files lack weights, such as {min(missing)}: they would start at random.",
            "Name a model that was saved whole, with its language modelling head.",
        )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise DataError(
                f"The model's weights hold values that are no finite numbers, in {name}: no training mends that.",
                "Name another model, or another revision of it.",
            )
    return model


def _thaw_padding(model: PreTrainedModel) -> None:
    """Let the embedding of padding learn: it often is the end of text too. Padding itself never carries a loss."""
    embedding: Any = model.get_input_embeddings()
    embedding.padding_idx = None


def pick_device(wanted: str) -> torch.device:
    """Return the device: `auto` is the GPU where there is one. From then on its sums are made in one fixed order."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(wanted)
    if device.type == "cuda":
        _make_deterministic()
    return device


def has_unusable_gpu() -> bool:
    """Say whether this process was given a GPU that torch cannot use."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "") not in ("", "-1") and not torch.cuda.is_available()


def _make_deterministic() -> None:
    """Let the same run end in the same bits on a GPU: no atomic sums, no TF32 where the spec says float32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    torch.set_float32_matmul_precision("highest")
    # Nobody reads memory here before it is written; filling it first would cost a pass over every tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def make_learner(
    model: PreTrainedModel, training: Training, device: torch.device, adapter: Adapter | None = None
) -> Learner:
    """Put a model, with the adapter that is in it, on its device, in training mode, with its optimizer.

    Raises DataError where the spec wants it compiled and there is no compiler.
    """
    if training.compile:
        _require_compiler()
    model.set_attn_implementation(IMPLEMENTATION)
    _fuse_gelu(model)
    if device.type == "cpu" and not training.compile:
        _cheapen_dropout(model)
    model.to(device)
    model.train()
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    dtype = _compute_dtype(training.precision, device)
    token_loss = TokenLoss(model, device=device, dtype=dtype, compiled=training.compile)
    return Learner(
        model=model,
        token_loss=token_loss,
        optimizer=_optimizer(model, training),
        device=device,
        # Half precision alone has too small a range for gradients as they are.
        scaler=torch.amp.GradScaler(device.type) if dtype == torch.float16 else None,
        adapter=adapter,
        lanes=_lanes(model, token_loss, training, device),
    )


def _lanes(model: PreTrainedModel, token_loss: TokenLoss, training: Training, device: torch.device) -> Lanes | None:
    """Return lanes on a CPU of more than one core, unless something in the loop is one for all threads."""
    # The compiled graph, the generator that checkpointing puts back to draw the same again, the scale of the gradients.
    shared = training.compile or training.gradient_checkpointing or training.precision == "fp16"
    shared = shared or _draws_from_the_global_generator(model)
    cores = torch.get_num_threads()
    return Lanes(model, token_loss, cores=cores) if device.type == "cpu" and cores > 1 and not shared else None


def _draws_from_the_global_generator(model: PreTrainedModel) -> bool:
    """Say whether the model's dropout is torch's function, which no module of ours can take the place of."""
    shape = model.config
    return shape.model_type == "starcoder2" and bool(shape.residual_dropout or shape.embedding_dropout)


def _require_compiler() -> None:
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise DataError(
            "training.compile needs a C++ compiler, and this worker has none.",
            "Install g++ where the worker runs, or leave training.compile out.",
        )


def _cheapen_dropout(model: PreTrainedModel) -> None:
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, Dropout(child.p))


def _fuse_gelu(model: PreTrainedModel) -> None:
    """Compute `gelu_new` in one kernel instead of eight: the same function, in about half the time."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def _compute_dtype(precision: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> torch.dtype:
    if precision == "auto":
        # Older GPUs would compute it in float32 and round each result.
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has_bf16 else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _optimizer(model: PreTrainedModel, training: Training) -> torch.optim.AdamW:
    """AdamW in one kernel; no weight decay on biases and norms, which are the parameters of one dimension."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (training.adam_beta1, training.adam_beta2)
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=betas, eps=training.adam_epsilon, fused=True)
