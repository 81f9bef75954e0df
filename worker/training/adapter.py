"""A LoRA adapter: matrices beside a model's own, trained in their place, and saved alone or added to them."""

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from core.errors import DataError
from core.model_spec import EarlierModel, HubModel, Lora
from worker.training.randomness import reseed

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

_NAME = "default"


class Adapter:
    """An adapter in a model, put there in place: the model computes with it, and only it is trained."""

    def __init__(self, model: PreTrainedModel, spec: EarlierModel | HubModel, lora: Lora, *, seed: int) -> None:
        """Add one whose weights follow from the seed. Raises DataError where the model has no such layers."""
        # Only here: this import takes two seconds, and few jobs need it.
        from peft import get_peft_model  # noqa: PLC0415

        layers = _linear_layers(model)
        _check_targets(lora, layers)
        self._model, self._merge = model, lora.merge
        self._config = _config(lora, layers)
        reseed(seed, "adapter")
        self._peft: PeftModel = get_peft_model(model, self._config, adapter_name=_NAME)
        _name_base(self._config, spec)

    @property
    def merges(self) -> bool:
        """Whether a checkpoint holds the whole model, with the adapter added."""
        return self._merge

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights by name, as they are."""
        return {name: weight.detach() for name, weight in self._model.named_parameters() if weight.requires_grad}

    def save(self, folder: Path) -> None:
        """Write what clients download: the adapter alone, or the model with the adapter added to its weights."""
        if self._merge:
            self._model.save_pretrained(folder, state_dict=self._merged())
            return
        from peft import get_peft_model_state_dict  # noqa: PLC0415

        folder.mkdir(parents=True)
        self._config.save_pretrained(str(folder))
        # Embeddings are never trained. Left to itself peft would look the base model up on the hub to find that out.
        tensors = get_peft_model_state_dict(self._peft, save_embedding_layers=False)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def _merged(self) -> dict[str, Tensor]:
        """Return the model's weights with the adapter added. Its own stay as they are, to the last bit."""
        from peft.tuners.lora import LoraLayer  # noqa: PLC0415

        weights = {
            name.replace(".base_layer.", "."): weight
            for name, weight in self._model.state_dict().items()
            if ".lora_" not in name
        }
        for name, layer in self._model.named_modules():
            if isinstance(layer, LoraLayer):
                delta = layer.get_delta_weight(_NAME)
                weights[f"{name}.weight"] = (weights[f"{name}.weight"] + delta.detach()).cpu()
        return weights


def _linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return the layers that can have an adapter: not the head, which is often tied to the embeddings."""
    head = model.get_output_embeddings()
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and layer is not head
    }


def _check_targets(lora: Lora, layers: dict[str, nn.Module]) -> None:
    for target in lora.target_modules or []:
        if not any(f".{name}".endswith(f".{target}") for name in layers):
            names = sorted({name.rpartition(".")[2] for name in layers})
            raise DataError(
                f"lora.target_modules names {target!r}, which is no linear layer of this model's.",
                f"Choose from {', '.join(names)}, or leave target_modules out for all of them.",
            )


def _config(lora: Lora, layers: dict[str, nn.Module]) -> "LoraConfig":
    from peft import LoraConfig  # noqa: PLC0415

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        # GPT-2's layers hold their weights the other way around.
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in layers.values()),
    )


def _name_base(config: "LoraConfig", spec: EarlierModel | HubModel) -> None:
    """Tell whoever loads the adapter what it belongs to, and nothing of where that lay on this machine."""
    if isinstance(spec, HubModel):
        config.base_model_name_or_path, config.revision = spec.hub, spec.revision
    else:
        # With the space it can be no name on the hub, where a stranger could put a model under it.
        config.base_model_name_or_path = f"{spec.checkpoint.job} epoch {spec.checkpoint.epoch}"
    config.inference_mode = True
    # peft has made a set of them, whose order differs from run to run.
    config.target_modules = sorted(config.target_modules or [])
