"""Memory of `mt translate` over an endless input: does it stay where it was?

python benchmarks/streaming.py [BUNDLE] [LINES]   (default: the quickstart's, a million lines)

The test text's lines, cut to three words, are piped in over and over, and the resident memory is
read after every tenth of them. One thread, greedy.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import cycle, islice
from pathlib import Path

from batches import test_text

BUNDLE = sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart/bundle"
LINES = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000


def resident(process: int) -> float:
    """Resident memory, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1000


def main() -> None:
    """Print the table."""
    command = [sys.executable, "-m", "mt.cli", "translate", BUNDLE, "--beam-size", "1"]
    process = subprocess.Popen(
        [*command, "--threads", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    source, target = process.stdin, process.stdout
    assert source is not None
    assert target is not None

    def feed() -> None:
        lines = [" ".join(line.split()[:3]) + "\n" for line in test_text("source") if line.strip()]
        for line in islice(cycle(lines), LINES):
            source.write(line.encode())
        source.close()

    threading.Thread(target=feed, daemon=True).start()
    began = time.monotonic()
    print("| lines | lines/s | resident, MB |\n|---|---|---|")
    for number, _ in enumerate(target, 1):
        if number % (LINES // 10) == 0:
            speed = number / (time.monotonic() - began)
            print(f"| {number:,} | {speed:,.0f} | {resident(process.pid):,.0f} |", flush=True)
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
