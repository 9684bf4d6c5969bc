"""What a run ran on, for whoever wants to repeat it."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mt import __version__

_PACKAGES = ("torch", "lightning", "sentencepiece", "sacrebleu", "datasets", "safetensors", "numpy")


def environment(seed: int, corpus: str) -> dict[str, Any]:
    """Describe versions, commit, hardware, seed and the text, by its hash."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "mt": __version__,
        "commit": _commit(),
        "seed": seed,
        "corpus": corpus,
        "python": platform.python_version(),
        "packages": versions,
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            ],
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def _commit() -> str | None:
    """Name the commit of the source, with `+changes` where the work tree differs from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12"]
    try:
        described = subprocess.run(
            [*command, "--dirty=+changes", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return described.stdout.strip() or None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().split("\n"):
            if line.startswith("model name"):
                flags = Path("/proc/cpuinfo").read_text()
                wide = next((f for f in ("avx512f", "avx2") if f" {f} " in flags), "")
                return f"{line.split(':')[1].strip()} {wide}".strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
