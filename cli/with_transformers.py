"""A checkpoint in the hands of transformers alone: a program for a process of its own, since this one has no torch."""

import os
import subprocess
import sys
from pathlib import Path

from core.errors import EpochdError

PROGRAM = """\
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, prompt = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
torch.manual_seed(0)
inputs = tokenizer(prompt, return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=80, do_sample=True, temperature=0.6, top_k=40)
print(tokenizer.decode(written[0], skip_special_tokens=True))
"""

_QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


def continue_prompt(folder: Path, prompt: str) -> str:
    """Return the prompt and what the model in `folder` makes of it. Raises EpochdError with the program's own words."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder.resolve()), prompt],
        env=os.environ | _QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EpochdError(f"transformers could not continue the prompt:\n{done.stderr.strip()}")
    return done.stdout.strip()
