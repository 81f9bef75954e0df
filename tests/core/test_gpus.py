"""Which GPUs are meant, on a machine with none and, by a driver's library that is played, on one with two."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import missing

_ASK = """
import json, sys
from core import gpus
from core.errors import Unusable
try:
    print(json.dumps(gpus.named(sys.argv[1])))
except Unusable as error:
    print(json.dumps(error.detail))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with two GPUs."""
    if not shutil.which("cc"):
        missing("a C compiler")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return {"LD_LIBRARY_PATH": str(folder), "STUB_GPUS": "GPU-aaa,GPU-bbb"}


def named(choice: str, **environment: str) -> list[str] | str:
    """Return what a process of this environment makes of a choice: the GPUs, or what it says against it."""
    inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", _ASK, choice], env=inherited | environment, capture_output=True, text=True, check=True
    )
    answer: list[str] | str = json.loads(done.stdout)
    return answer


def test_they_are_named_as_cuda_takes_them(driver: dict[str, str]) -> None:
    assert named("all", **driver) == ["GPU-aaa", "GPU-bbb"]
    assert named("none", **driver) == []
    assert named("1", **driver) == ["GPU-bbb"]
    assert named("GPU-bbb, 0", **driver) == ["GPU-bbb", "GPU-aaa"]
    assert named("MIG-123", **driver) == ["MIG-123"]


def test_all_are_those_that_cuda_may_see(driver: dict[str, str]) -> None:
    assert named("all", **driver, CUDA_VISIBLE_DEVICES="1") == ["1"]
    assert named("all", **driver, CUDA_VISIBLE_DEVICES="") == []


def test_a_gpu_that_is_not_there_is_an_error_that_names_those_that_are(driver: dict[str, str]) -> None:
    assert named("2", **driver) == (
        "EPOCHD_GPUS names the GPU '2', and this machine has GPU-aaa, GPU-bbb. Correct it, or use `all`."
    )
    assert "'GPU-ccc'" in named("GPU-ccc", **driver)
    assert "NVIDIA's driver is not there" in named("0")


def test_a_machine_without_a_driver_has_none() -> None:
    assert named("all") == []
