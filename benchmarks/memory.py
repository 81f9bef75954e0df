"""How much memory a process, and a GPU, has needed."""

import os
import shutil
import subprocess
from pathlib import Path


def peak_rss(pid: int) -> int | None:
    """Return the most memory that a process has held since its exec, in bytes. Elsewhere than on Linux: None."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def device_memory() -> int | None:
    """Return what is in use on the GPU by anybody, in bytes; None without `nvidia-smi`."""
    if shutil.which("nvidia-smi") is None:
        return None
    # The first GPU that torch sees; a list of visible ones starts with it.
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", f"--id={first}", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 2**20
