"""`mt evaluate`: translate a test set, score it, and write what it shows."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from mt.errors import MTError
from mt.evaluation.report import Example, ReportData, TestSet, write_report
from mt.evaluation.scores import SetScores, score_set, write_scores
from mt.files import check_folder, write_atomically
from mt.lines import read_parallel
from mt.parallel import CHUNK, Engine, Job

_log = logging.getLogger("mt")


def evaluate(
    bundle: Path,
    engine: Engine,
    source: Path,
    references: Sequence[Path],
    metrics: Sequence[str],
    output: Path,
) -> SetScores:
    """Evaluate a bundle on one test set.

    Args:
        bundle: Folder of the bundle that `engine` holds.
        engine: The translator.
        source: File of source lines.
        references: Files of reference translations.
        metrics: Names out of `mt.evaluation.scores.METRICS`.
        output: Folder for hypotheses.txt, scores.json and report.html.

    Raises:
        MTError: A file is missing, is not UTF-8, is empty, or differs in its number of lines.
    """
    check_folder(output, "--output")
    sources, *streams = read_parallel([source, *references])
    if not sources:
        raise MTError(f"{source}: the file is empty; give one with a sentence on each line")
    began = time.monotonic()
    jobs = (
        Job(sources[start : start + CHUNK], None, start + 1)
        for start in range(0, len(sources), CHUNK)
    )
    hypotheses = [best[0].text for done in engine.translate(jobs) for best in done]
    seconds = time.monotonic() - began
    translator = engine.translator
    language = translator.languages[1]
    scores = score_set(source.name, hypotheses, streams, metrics, target_language=language)
    facts = [
        ("Bundle", str(bundle)),
        ("Parameters", f"{sum(p.numel() for p in translator.model.parameters()):,}"),
        ("References", ", ".join(map(str, references))),
    ]
    write_atomically(output / "hypotheses.txt", "".join(f"{text}\n" for text in hypotheses))
    examples = [Example(*row) for row in zip(sources, streams[0], hypotheses, strict=True)]
    write_report(
        output / "report.html",
        ReportData(
            title=source.name,
            sets=[TestSet(scores, examples)],
            languages=translator.languages,
            facts=facts,
            cleaning=None,
            curves=None,
            recipe_yaml=None,
            translations_per_second=len(sources) / seconds if seconds else None,
        ),
    )
    write_scores(output / "scores.json", [scores])
    return scores
