"""Figure and table of docs/fine-tuning.md: an engine for everyday language learns image captions.

python docs/fine_tuning.py BUNDLE MULTI30K   (hours; what is finished is not done again)

BUNDLE is the result of recipes/tatoeba-en-de.yaml, MULTI30K a folder of train.*, valid.* and
test2016.* in en and de. Runs go to runs/fine-tuning/, the figure to docs/fine-tuning.svg.
"""

from __future__ import annotations

import json
import shutil
import sys
from itertools import islice
from pathlib import Path

from figures import save_figure

from mt import Translator
from mt.evaluation.plots import Series, line_chart
from mt.evaluation.scores import corpus_score
from mt.options import parse_train
from mt.training.fit import train

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs/fine-tuning"
SIZES = {1_000: 20, 5_000: 12, 29_000: 6}
"""In-domain pairs, and the epochs of fine-tuning on them."""
SCRATCH = "from scratch"
WAYS = {
    "fine-tuned": [],
    "new tokenizer": ["--new_tokenizer", "true", "--tokenizer.vocab_size", "4000"],
    "encoder frozen": ["--training.freeze", '["encoder.*"]'],
    SCRATCH: [],
}


def corpus(folder: Path, pairs: int) -> Path:
    """Lay out the first pairs of the training text beside validation and test."""
    own = RUNS / f"text-{pairs}"
    own.mkdir(parents=True, exist_ok=True)
    for side in ("en", "de"):
        for name in ("valid", "test2016"):
            shutil.copyfile(folder / f"{name}.{side}", own / f"{name}.{side}")
        with open(folder / f"train.{side}", encoding="utf-8") as lines:
            text = "".join(islice(lines, pairs))
        (own / f"train.{side}").write_text(text, encoding="utf-8")
    return own


def bleu(way: str, pairs: int, bundle: str, folder: Path) -> float:
    """Train one way, where it has not been done, and read the test set's cased BLEU."""
    run = RUNS / f"{way.replace(' ', '-')}-{pairs}"
    if not (run / "scores.json").exists():
        words = [str(HERE.parent / "recipes/own-text.yaml"), "--output", str(run), "--resume"]
        words += ["--corpus.files", str(corpus(folder, pairs)), "--corpus.source", "en"]
        words += ["--corpus.target", "de", "--corpus.cleaning.held_out", "exact", *WAYS[way]]
        if way != SCRATCH:
            words += ["--init-from", bundle, "--training.learning_rate", "1e-3"]
            words += ["--trainer.max_epochs", str(SIZES[pairs]), "--batches.subword_sampling", "0"]
            words += ["--trainer.val_check_interval", "1.0"]
        options = parse_train(words)
        train(options.recipe, options.output, resume=run.exists())
    [test] = json.loads((run / "scores.json").read_text())["sets"]
    return float(next(s["score"] for s in test["scores"] if s["metric"] == "bleu"))


def main() -> None:
    """Run everything, print the table and write the figure."""
    bundle, folder = sys.argv[1], Path(sys.argv[2])
    source, reference = (
        (folder / f"test2016.{side}").read_text(encoding="utf-8").splitlines()
        for side in ("en", "de")
    )
    hypotheses = Translator.load(bundle).translate(source)
    before = corpus_score("bleu", hypotheses, [reference], target_language="de")
    print(f"The bundle itself: {before.score:.1f}")
    found = {way: {n: bleu(way, n, bundle, folder) for n in SIZES} for way in WAYS}
    print(f"| | {' | '.join(f'{n:,} pairs' for n in SIZES)} |")
    print("|---|" + "---|" * len(SIZES))
    for way, scores in found.items():
        print(f"| {way} | {' | '.join(f'{score:.1f}' for score in scores.values())} |")
    lines = [
        Series(way, [(float(n), score) for n, score in scores.items()], style, dots=True)
        for (way, scores), style in zip(found.items(), "abcd", strict=True)
    ]
    figure = line_chart("Fine-tuning", "BLEU", lines, x_name="in-domain pairs")
    save_figure(HERE / "fine-tuning.svg", figure)


if __name__ == "__main__":
    main()
