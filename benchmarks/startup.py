"""How long one line takes from the shell, beyond the import of torch.

python benchmarks/startup.py [BUNDLE]   (default: runs/quickstart/bundle)
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 5


def seconds(command: list[str], text: str) -> float:
    """Time one process, wall-clock."""
    began = time.perf_counter()
    subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the medians, taken in turn."""
    bundle = sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/bundle"
    torch = [sys.executable, "-c", "import torch"]
    translate = [sys.executable, "-m", "mt.cli", "translate", bundle]
    line = "Select the file that you want to open.\n"
    seconds(torch, ""), seconds(translate, line)  # fill the disk's cache
    pairs = [(seconds(torch, ""), seconds(translate, line)) for _ in range(RUNS)]
    base, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    print("| process | median of 5, seconds |")
    print("|---|---|")
    print(f"| `import torch` | {base:.2f} |")
    print(f"| `mt translate` of one line | {whole:.2f} |")
    print(f"| difference | {whole - base:.2f} |")


if __name__ == "__main__":
    main()
