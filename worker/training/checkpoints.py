"""Checkpoints on disk: a folder that is there whole or not at all, without a byte that could run.

step-00000215/
  model/    weights (or an adapter's), config and tokenizer, as `from_pretrained` reads them
  state/    what only a resume needs: optimizer.safetensors, run_state.json, and adapter.safetensors where there is one
"""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from core.disk import sync
from core.failpoints import reach
from worker.training.build import Learner
from worker.training.errors import DISK_HINT, DiskFull, Diverged
from worker.training.run_state import RunState

_ADAPTER = "adapter.safetensors"
# Tokenizer, configuration and the file system's own.
_BESIDE_TENSORS = 16 * 2**20


def save(output_dir: Path, learner: Learner, tokenizer: PreTrainedTokenizerFast | None, state: RunState) -> Path:
    """Write a checkpoint and return its folder, durable under its final name.

    Raises Diverged where a weight is not finite, DiskFull where there is no room, and writes nothing then. Whatever
    else goes wrong, nothing half-written stays behind.
    """
    require_room(output_dir, learner)
    require_finite(learner, state)
    folder = output_dir / f"step-{state.step:08d}"
    unfinished = output_dir / f".{folder.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "state").mkdir(parents=True)
        if learner.adapter:
            learner.adapter.save(unfinished / "model")
            save_file(learner.adapter.tensors(), unfinished / "state" / _ADAPTER)
        else:
            learner.model.save_pretrained(unfinished / "model")
        reach("trainer weights written")
        if tokenizer is not None:
            tokenizer.save_pretrained(unfinished / "model")
        save_file(_optimizer_tensors(learner), unfinished / "state" / "optimizer.safetensors")
        reach("trainer optimizer written")
        (unfinished / "state" / "run_state.json").write_text(state.model_dump_json(indent=2), encoding="utf-8")
        _make_durable(unfinished)
        reach("trainer checkpoint synced")
        # Only a run repeated by hand meets its own former step here.
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        sync(output_dir)
        reach("trainer checkpoint in place")
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder


def require_finite(learner: Learner, state: RunState) -> None:
    """Raise Diverged where a weight that is trained is not finite; the others were when they were loaded."""
    trained = [weight for weight in learner.model.parameters() if weight.requires_grad]
    if not torch.stack([torch.isfinite(weight).all() for weight in trained]).all():
        raise Diverged(
            f"After step {state.step} the weights hold a value that is not finite; no checkpoint was written of them.",
            "Lower training.learning_rate, or give it a longer warmup; the last checkpoint is still good.",
        )


def require_room(output_dir: Path, learner: Learner) -> None:
    """Raise DiskFull where the disk has no room for a checkpoint."""
    trained = _bytes(weight for weight in learner.model.parameters() if weight.requires_grad)
    saved = trained if learner.adapter and not learner.adapter.merges else _bytes(learner.model.parameters())
    # AdamW keeps two numbers for each weight; an adapter's own weights are saved once more for a resume.
    needed = saved + (3 if learner.adapter else 2) * trained + _BESIDE_TENSORS
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise DiskFull(
            f"A checkpoint takes up to {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free where it is written.",
            DISK_HINT,
        )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def read_state(checkpoint: Path) -> RunState:
    """Read what the run remembered at a checkpoint."""
    return RunState.model_validate_json((checkpoint / "state" / "run_state.json").read_bytes())


def restore_adapter(checkpoint: Path, learner: Learner) -> None:
    """Give the adapter, where there is one, the weights it had at a checkpoint."""
    if learner.adapter:
        saved = load_file(checkpoint / "state" / _ADAPTER)
        for name, weight in learner.adapter.tensors().items():
            weight.copy_(saved[name])


def restore_optimizer(checkpoint: Path, learner: Learner) -> None:
    """Give the optimizer the state it had at a checkpoint."""
    names = {parameter: name for name, parameter in learner.model.named_parameters()}
    states: dict[str, dict[str, Tensor]] = {}
    for key, tensor in load_file(checkpoint / "state" / "optimizer.safetensors").items():
        kind, name = key.split("/", 1)
        states.setdefault(name, {})[kind] = tensor
    ordered = [parameter for group in learner.optimizer.param_groups for parameter in group["params"]]
    learner.optimizer.load_state_dict(
        {
            "state": {i: states[names[p]] for i, p in enumerate(ordered) if names[p] in states},
            "param_groups": learner.optimizer.state_dict()["param_groups"],
        }
    )


def restore_scale(state: RunState, learner: Learner) -> None:
    """Give the gradient scaler, where there is one, the state it had at a checkpoint."""
    if learner.scaler and state.loss_scale:
        saved = {"scale": state.loss_scale.scale, "_growth_tracker": state.loss_scale.good_windows}
        learner.scaler.load_state_dict(learner.scaler.state_dict() | saved)


def _optimizer_tensors(learner: Learner) -> dict[str, Tensor]:
    """Name AdamW's tensors after their parameters, e.g. `exp_avg/transformer.wte.weight`."""
    return {
        f"{kind}/{name}": tensor
        for name, parameter in learner.model.named_parameters()
        for kind, tensor in learner.optimizer.state.get(parameter, {}).items()
    }


def _make_durable(folder: Path) -> None:
    """Bring a folder's every byte and name to the disk, readable by other users (safetensors writes mode 0600)."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        sync(path)
