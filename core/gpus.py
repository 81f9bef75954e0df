"""Which GPUs a worker of this machine trains on: by the names that CUDA itself takes, found without torch."""

import os

import pynvml

from core.errors import Unusable

ALL, NONE = "all", "none"


def named(choice: str) -> list[str]:
    """Return the GPUs of EPOCHD_GPUS, each as CUDA_VISIBLE_DEVICES would name it: by UUID wherever the driver knows it.

    `all` heeds the CUDA_VISIBLE_DEVICES of this process. A number is nvidia-smi's: CUDA counts otherwise by default.
    Raises Unusable where a GPU is named that is not there.
    """
    if choice == NONE:
        return []
    if choice == ALL:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        # An empty list, or -1, hides every GPU.
        return _uuids() if visible is None else [name for name in _split(visible) if name not in ("", "-1")]
    there = _uuids()
    return [_uuid(name, there) for name in _split(choice)]


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _uuid(name: str, there: list[str]) -> str:
    if name.isdecimal() and int(name) < len(there):
        return there[int(name)]
    # A slice of a GPU (MIG) has a name of its own, which the driver lists elsewhere.
    if name in there or (there and name.startswith("MIG-")):
        return name
    found = ", ".join(there) or "none: NVIDIA's driver is not there, or sees no GPU"
    raise Unusable(f"EPOCHD_GPUS names the GPU {name!r}, and this machine has {found}. Correct it, or use `all`.")


def _uuids() -> list[str]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
