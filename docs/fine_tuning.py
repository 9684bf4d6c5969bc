"""What a general translator is worth to text of another kind: a table and a figure.

python docs/fine_tuning.py BUNDLE DIR RUNS [OPTIONS]   (writes docs/fine-tuning.svg; hours)

BUNDLE is the general translator, DIR holds train.*, valid.* and a test set. `own-text.yaml` is
trained on the first pairs of DIR's training text, once from BUNDLE's weights and once afresh;
OPTIONS are those of `mt train` for all of these runs, such as a limit of their time. Runs, which
are not done again, are kept in RUNS.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

from mt.evaluation.plots import Series, point_chart, write_svg

HERE = Path(__file__).parent
PAIRS = 1000, 5000, 29000
RATE = ["--training.learning_rate", "1e-3"]  # for weights that are good already


def shorten(text: Path, pairs: int, folder: Path) -> None:
    """Copy the first training pairs, and the validation and test text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in text.iterdir():
        part, _, language = path.name.partition(".")
        if language not in ("en", "de"):
            continue
        with path.open(encoding="utf-8") as lines:
            kept = islice(lines, pairs) if part == "train" else lines
            (folder / path.name).write_text("".join(kept), encoding="utf-8")


def score(run: Path, command: list[str]) -> float:
    """Do a run unless it is done; give the BLEU of its test set."""
    if not (run / "scores.json").exists():
        print(" ".join(command), file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "mt.cli", *command], check=True)
    [test] = json.loads((run / "scores.json").read_text())["sets"]
    return next(float(one["score"]) for one in test["scores"] if one["metric"] == "bleu")


def main() -> None:
    """Train, print the table and draw it."""
    bundle, text, runs = map(Path, sys.argv[1:4])
    recipe = str(HERE.parent / "recipes" / "own-text.yaml")
    found: dict[str, list[tuple[float, float]]] = {"fine-tuned": [], "afresh": []}
    for pairs in PAIRS:
        folder = runs / f"text-{pairs}"
        shorten(text, pairs, folder)
        for name, options in (
            ("fine-tuned", ["--init-from", str(bundle), *RATE]),
            ("afresh", []),
        ):
            run = runs / f"{name}-{pairs}"
            command = ["train", recipe, "--corpus.files", str(folder), "--output", str(run)]
            command += [*options, *sys.argv[4:], *(["--resume"] if run.exists() else [])]
            found[name].append((pairs, score(run, command)))
    [source], [reference] = (list(folder.glob(f"test*.{code}")) for code in ("en", "de"))
    command = ["evaluate", str(bundle), "--source", str(source), "--reference", str(reference)]
    before = score(runs / "before", [*command, "--output", str(runs / "before")])

    print("| pairs | fine-tuned | afresh |")
    print("|---|---|---|")
    print(f"| none | {before:.1f} | |")
    for (pairs, tuned), (_, afresh) in zip(*found.values(), strict=True):
        print(f"| {pairs:,.0f} | {tuned:.1f} | {afresh:.1f} |")
    lines = [
        Series(name, points, style)
        for (name, points), style in zip(found.items(), "ab", strict=True)
    ]
    lines.append(Series("as it is", [(pairs, before) for pairs in PAIRS], "c"))
    name = "pairs of the new kind"
    chart = point_chart("Fine-tuning", "BLEU of the test set", lines, x_name=name, log=True)
    write_svg(HERE / "fine-tuning.svg", chart)


if __name__ == "__main__":
    main()
