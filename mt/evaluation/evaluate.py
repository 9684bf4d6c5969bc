"""`mt evaluate` and `mt compare`: systems on test sets, scored, and what that shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from mt.errors import MTError
from mt.evaluation.analysis import analyse
from mt.evaluation.behaviour import beam_curve, behaviour
from mt.evaluation.comet import Comet
from mt.evaluation.examples import Example, choose
from mt.evaluation.report import ReportData, TestSet, write_report
from mt.evaluation.scores import SetScores, score_means, score_set, sentence_scores
from mt.evaluation.systems import SetFiles, System, find_languages, open_systems, translate
from mt.files import check_folder, write_atomically
from mt.lines import read_lines
from mt.parallel import CHUNK, Engine
from mt.translator import Alignment, Translator

_log = logging.getLogger("mt")

MOST_BEST = 5
"""Translations of a sentence that a report shows at most."""


def evaluate(
    systems: Sequence[str],
    tests: Sequence[SetFiles],
    metrics: Sequence[str],
    output: Path,
    make_engine: Callable[[Path], Engine],
    training_text: Sequence[Path] = (),
    beam_sizes: Sequence[int] = (),
    target_language: str | None = None,
    comet_model: str = "",
) -> list[SetScores]:
    """Evaluate one system on test sets, or compare several with the first.

    Args:
        systems: Each as `read_system` takes it: folders of bundles, which translate now, or files
            of translations.
        tests: Test sets.
        metrics: Names out of `mt.evaluation.scores.METRICS`, and `comet`.
        output: Folder for scores.json, sentences.tsv, report.md, report.html, and the hypotheses of
            bundles.
        make_engine: Loads a bundle.
        training_text: Files of training sources and targets; without, the text that the first of
            the bundles was trained on, where it lies in its run's folder.
        beam_sizes: Of beams to compare, for the first system.
        target_language: Code such as `de`; without, that of a bundle, or the ending of a reference.
        comet_model: See `Comet`.

    Raises:
        MTError: A file is missing, is not UTF-8, is empty, or differs in its number of lines; two
            systems have one name; COMET is asked for and not installed; the target language is
            unknown, or another than a bundle's.
    """
    check_folder(output, "--output")
    if len(training_text) not in (0, 2):
        raise MTError("--training-text: give two files, the sources and their targets")
    if any(size < 1 for size in beam_sizes):
        raise MTError("--beam-sizes: a beam holds at least 1 hypothesis")
    comet = Comet(comet_model) if "comet" in metrics else None
    texts = [test.read() for test in tests]
    # All is opened first, so that a mistake is told before anything is translated.
    opened = open_systems(systems, tests, texts, make_engine)
    languages = find_languages(opened, tests[0], target_language)
    _log.info("systems    %s", ", ".join(system.name for system in opened))
    found = translate(opened, texts)
    first = found[0].runs[0]
    open_training = _training_text(found, training_text)
    if open_training is not None:
        _log.info("training   the text is read through")
    examined = [
        examine(
            test.name,
            sources,
            streams,
            {system.name: [run.hypotheses[place] for run in system.runs] for system in found},
            metrics,
            languages[1],
            open_training() if open_training else None,
            first.engine.translator if first.engine else None,
            beam_sizes,
            comet,
        )
        for place, (test, (sources, *streams)) in enumerate(zip(tests, texts, strict=True))
    ]
    _write_hypotheses(output, found, tests)
    references = ", ".join(str(path) for test in tests for path in test.references)
    write_report(
        output,
        ReportData(
            title=", ".join(system.name for system in found),
            sets=examined,
            languages=languages,
            facts=[*_facts(found), ("References", references)],
            translations_per_second=sum(len(text[0]) for text in texts) / first.seconds
            if first.engine
            else None,
        ),
    )
    return [one.scores for one in examined]


def examine(
    name: str,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    systems: Mapping[str, Sequence[Sequence[str]]],
    metrics: Sequence[str],
    target_language: str,
    training: Iterable[tuple[Sequence[str], Sequence[str]]] | None,
    translator: Translator | None,
    beam_sizes: Sequence[int] = (),
    comet: Comet | None = None,
) -> TestSet:
    """Gather all that a report tells of a test set.

    Args:
        name: Of the test set.
        sources: Its sentences.
        references: One or more streams.
        systems: Hypotheses of each training run, by the name of the system. All but the scores is
            told of the first run.
        metrics: Names; the first but `comet` is that of breakdowns, or chrF2 where that is all.
        target_language: Code.
        training: Batches of the training text.
        translator: Of the first system.
        beam_sizes: Of beams for it to compare.
        comet: Computes `comet`.
    """
    _log.info("scores     %s of %s", ", ".join(metrics), name)
    metrics = [metric for metric in metrics if metric != "comet"] or ["chrf"]
    scores = score_set(name, systems, references, metrics, target_language=target_language)
    columns = [runs[0] for runs in systems.values()]
    tokenizer = translator.tokenizers.target if translator else None
    metric = metrics[0]
    analysis = analyse(sources, references, columns, metric, target_language, training, tokenizer)
    seen: Sequence[Alignment | None] = [None] * len(sources)
    observed = None
    if translator is not None:
        if translator.model.architecture.attention != "none":
            seen = translator.align(sources, columns[0])
        observed = behaviour(translator, sources, references[0], columns[0], seen)
        if beam_sizes:
            _log.info("beams      %s", ", ".join(map(str, beam_sizes)))
            beams = beam_curve(translator, sources, references, metric, beam_sizes)
            observed = observed._replace(beams=beams)
    sentences = {
        name: [
            sentence_scores(name, column, references, target_language=target_language)
            for column in columns
        ]
        for name in dict.fromkeys([*metrics, "chrf"])
    }
    if comet is not None:
        scores, sentences["comet"] = _judge(comet, scores, sources, references[0], systems)
    examples = [
        Example(source, reference, hypothesis, others, alignment)
        for source, reference, alignment, hypothesis, *others in zip(
            sources, references[0], seen, *columns, strict=True
        )
    ]
    if translator is not None and translator.options.beam_size > 1:
        shown = choose(sentences["chrf"], [*systems])
        _add_n_best(translator, examples, {place for group in shown for place in group.places})
    return TestSet(scores, examples, sentences, analysis, observed)


def _judge(
    comet: Comet,
    scores: SetScores,
    sources: Sequence[str],
    reference: Sequence[str],
    systems: Mapping[str, Sequence[Sequence[str]]],
) -> tuple[SetScores, list[list[float]]]:
    """Add COMET to the scores, and return that of each system's and sentence's first run too."""
    judged = [[comet(sources, run, reference) for run in runs] for runs in systems.values()]
    first, *others = score_means("comet", comet.signature(), judged)
    added = scores._replace(
        scores=[*scores.scores, first],
        others=[
            other._replace(scores=[*other.scores, its])
            for other, its in zip(scores.others, others, strict=True)
        ],
    )
    return added, [runs[0] for runs in judged]


def _add_n_best(translator: Translator, examples: list[Example], places: Iterable[int]) -> None:
    chosen = sorted(places)
    count = min(MOST_BEST, translator.options.beam_size)
    options = replace(translator.options, n_best=count)
    found = translator.n_best([examples[place].source for place in chosen], options)
    for place, best in zip(chosen, found, strict=True):
        examples[place] = examples[place]._replace(n_best=[(one.text, one.score) for one in best])


def _write_hypotheses(output: Path, systems: Sequence[System], tests: Sequence[SetFiles]) -> None:
    """Write what bundles translated; the names say what tells the files apart."""
    for number, system in enumerate(systems):
        for seed, run in enumerate(system.runs):
            for test, lines in zip(tests, run.hypotheses, strict=True):
                parts = [
                    "hypotheses",
                    test.name if len(tests) > 1 else "",
                    system.name if number else "",
                    str(seed + 1) if len(system.runs) > 1 else "",
                    "txt",
                ]
                if run.engine is not None:
                    path = output / ".".join(filter(None, parts))
                    write_atomically(path, "".join(f"{text}\n" for text in lines))


def _training_text(
    systems: Sequence[System], given: Sequence[Path]
) -> Callable[[], Iterator[tuple[list[str], list[str]]]] | None:
    """Find the training text, in files or that of a bundle's run, to be read in batches."""
    if given:
        return partial(_batches, *given)
    bundles = [run.path for system in systems for run in system.runs if run.engine is not None]
    runs = [path.absolute().parent for path in bundles]
    recipe = next((run / "recipe.yaml" for run in runs if (run / "recipe.yaml").exists()), None)
    if recipe is None:
        return None
    from mt.corpus import load_corpus
    from mt.options import parse_train
    from mt.recipe import TranslationRecipe

    try:
        translation = parse_train([str(recipe)]).recipe
        assert isinstance(translation, TranslationRecipe)  # its bundle translates
        return load_corpus(translation.corpus).batches
    except MTError as error:
        _log.warning("training   the text of %s is not at hand: %s", recipe.parent, error)
        return None


def _batches(source: Path, target: Path) -> Iterator[tuple[list[str], list[str]]]:
    sides = read_lines(source), read_lines(target)
    while True:
        sources, targets = (list(islice(side, CHUNK)) for side in sides)
        if len(sources) != len(targets):
            raise MTError(
                f"--training-text: {source} and {target} differ in their number of lines; "
                "line N of one must translate line N of the other"
            )
        if not sources:
            return
        yield sources, targets


def _facts(systems: Sequence[System]) -> list[tuple[str, str]]:
    facts = []
    for system in systems:
        told = ", ".join(str(run.path) for run in system.runs)
        engine = system.runs[0].engine
        if engine is not None:
            parameters = engine.translator.model.parameters()
            told += f", {sum(p.numel() for p in parameters):,} parameters"
        facts.append((system.name if len(systems) > 1 else "System", told))
    return facts
