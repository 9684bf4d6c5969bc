"""Corpus scores, each with the sacreBLEU signature that says exactly what was measured.

Importing this module is cheap: sacreBLEU and sacremoses are loaded by the first score.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from statistics import fmean, mean
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mt.errors import MTError
from mt.placeholders import PLACEHOLDER

METRICS = ("bleu", "chrf", "chrf++", "ter", "bleu-lc-tok")
"""Names of the metrics that `corpus_score` knows."""

RESAMPLES, TRIALS = 1000, 10_000
"""Bootstrap resamples, and trials of approximate randomization."""

MAX_RESAMPLED = 10_000
"""Sentences of the largest test set that gets intervals and p-values: memory grows with resamples x
sentences, and a larger set hardly needs them."""


def bootstrap_interval(drawn: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends that 95% of a bootstrap's values lie between."""
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


class Score(NamedTuple):
    """One corpus score."""

    metric: str
    """A name of `METRICS`."""
    score: float
    """0 to 100, higher is better; TER instead is edits per 100 reference words, lower is better."""
    signature: str
    """sacreBLEU's signature: scores compare only where these are equal."""
    interval: tuple[float, float] | None = None
    """95% bootstrap confidence interval (Koehn, W04-3250): what the score would have been on other
    sentences of the same kind; None where it was not asked for, for a single sentence, which says
    nothing about others, and above `MAX_RESAMPLED` sentences."""
    p_bootstrap: float | None = None
    """Paired bootstrap (Koehn, W04-3250): how often a difference as great from the first of several
    systems would be seen if the two were equally good; None for the first, and as above."""
    p_randomization: float | None = None
    """The same by paired approximate randomization (Riezler and Maxwell, W05-0908)."""
    runs: Sequence[float] = ()
    """The score of each of several training runs, whose mean `score` is; empty for one run."""


class SystemScores(NamedTuple):
    """The scores of a system that is compared with another."""

    name: str
    """Of the system, such as `baseline`."""
    scores: list[Score]
    """One entry per metric."""
    better: int
    """Sentences whose chrF2 is above the other's."""
    equal: int
    worse: int


class SetScores(NamedTuple):
    """The scores of one test set."""

    name: str
    """Name of the test set, such as `test`."""
    sentences: int
    """Number of sentences scored."""
    system: str
    """Name of the system that matters, or comes first."""
    scores: list[Score]
    """Its scores, one entry per metric."""
    others: Sequence[SystemScores] = ()
    """Systems that were compared with it."""


def corpus_score(
    metric: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    target_language: str,
) -> Score:
    """Score `hypotheses` against one or more reference streams, each a list of as many sentences.

    `bleu` (BLEU, Papineni et al. 2002), `chrf` (chrF2, Popović 2015), `chrf++` (chrF2++, Popović
    2017) and `ter` (Snover et al. 2006) are those of the `sacrebleu` command; BLEU's tokenizer
    follows `target_language` as described at `bleu_tokenizer`. `bleu-lc-tok` is the score of the
    Multi30k papers: see `LcTok`.

    Raises MTError where the metric is unknown, nothing is given, or the counts differ.
    """
    task = _prepare(metric, [[hypotheses]], references, target_language)
    [[run]] = task.systems
    score = float(task.scorer.corpus_score(run, task.references).score)
    return Score(metric, score, task.signature())


def score_systems(
    metric: str,
    systems: Sequence[Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    *,
    target_language: str,
    test: bool = True,
) -> list[Score]:
    """Score the hypotheses of systems, with their intervals, and `test` how each differs from the
    first. Takes seconds.

    A system is one or more training runs, each with its hypotheses. Where it has several, what is
    drawn and swapped by interval and tests are sentences with all their translations, so that
    chance is that of the choice of sentences alone; the spread of the runs stands in `Score.runs`.

    The rest is as for `corpus_score`.
    """
    task = _prepare(metric, systems, references, target_language)
    tables = [[task.statistics(run) for run in runs] for runs in task.systems]
    # The signature is whole once something has been counted.
    return _score_tables(metric, task.signature(), task.scorer, tables, test)


def score_means(
    metric: str, signature: str, systems: Sequence[Sequence[Sequence[float]]]
) -> list[Score]:
    """Do the same with a metric whose corpus score is the mean of the sentences' scores.

    Args:
        metric: Its name.
        signature: What it measures.
        systems: For each system, for each training run, the score of each sentence.
    """
    tables = [[[[score, 1.0] for score in run] for run in runs] for runs in systems]
    return _score_tables(metric, signature, _Mean(), tables, test=True)


def _score_tables(
    metric: str, signature: str, scorer: Any, systems: Sequence[Sequence[Any]], test: bool
) -> list[Score]:
    """Score systems, each one or more runs, from each sentence's statistics."""
    scored = [[float(scorer._aggregate_and_compute(t).score) for t in runs] for runs in systems]
    plain = [
        Score(metric, fmean(runs), signature, runs=runs if len(runs) > 1 else ()) for runs in scored
    ]
    if not 1 < len(systems[0][0]) <= MAX_RESAMPLED:
        return plain
    # Means, not sums: a shuffle exchanges systems of different numbers of runs.
    means = [np.mean(runs, axis=0) for runs in systems]
    found = [
        score._replace(
            interval=(float(one.mean - one.ci), float(one.mean + one.ci)), p_bootstrap=one.p_value
        )
        for score, one in zip(plain, _paired_test(scorer, means, "bs", RESAMPLES), strict=True)
    ]
    if not test or len(systems) == 1:
        return [one._replace(p_bootstrap=None) for one in found]
    first, *others = found
    tested = [first]
    for one, shuffled in zip(others, _paired_test(scorer, means, "ar", TRIALS)[1:], strict=True):
        p_values = one.p_bootstrap, shuffled.p_value
        if one.score == first.score:  # sacreBLEU asks for greater differences, not as great
            p_values = 1.0, 1.0
        tested.append(one._replace(p_bootstrap=p_values[0], p_randomization=p_values[1]))
    return tested


def sentence_scores(
    metric: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    target_language: str,
) -> list[float]:
    """Return the score of each sentence, as for `corpus_score`.

    BLEU is that of the orders of n-gram that the sentence is long enough for (sacreBLEU's
    `effective_order`); even so chrF ranks single sentences better.
    """
    task = _prepare(metric, [[hypotheses]], references, target_language, single=True)
    [[run]] = task.systems
    return [float(task.scorer._compute_score_from_stats(row).score) for row in task.statistics(run)]


class _Task(NamedTuple):
    """Texts as a scorer wants them."""

    metric: str
    scorer: Any
    systems: list[list[Sequence[str]]]
    references: list[Sequence[str]]
    language: str

    def statistics(self, hypotheses: Sequence[str]) -> list[Any]:
        """Count what the metric is computed from, for each sentence: its sums over sentences are
        those of a corpus."""
        table: list[Any] = self.scorer._extract_corpus_statistics(hypotheses, self.references)
        return table

    def signature(self) -> str:
        """Say how it was scored; sacreBLEU knows once it has scored something."""
        signature = str(self.scorer.get_signature())
        if self.metric == "bleu-lc-tok":
            signature = signature.replace("case:mixed", "case:lc")
            signature = signature.replace("tok:none", f"tok:moses-lc-norm-{self.language}")
        return signature


def _prepare(
    metric: str,
    systems: Sequence[Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    target_language: str,
    single: bool = False,
) -> _Task:
    if metric not in METRICS:
        raise MTError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    for runs in systems:
        for hypotheses in runs:
            _check_counts(hypotheses, references)
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    scorer: BLEU | CHRF | TER
    texts = [list(runs) for runs in systems]
    if metric == "bleu-lc-tok":
        lc_tok = LcTok(target_language)
        texts = [[[lc_tok(line) for line in hypotheses] for hypotheses in runs] for runs in systems]
        references = [lc_tok.references(stream) for stream in references]
        # `force` silences the warning about tokenised text, which is what we mean to score.
        scorer = BLEU(tokenize="none", force=True, effective_order=single)
    elif metric == "bleu":
        scorer = BLEU(tokenize=bleu_tokenizer(target_language), effective_order=single)
    elif metric == "ter":
        scorer = TER()
    else:
        scorer = CHRF(word_order=2 if metric == "chrf++" else 0)
    return _Task(metric, scorer, texts, list(references), _primary(target_language))


def _paired_test(
    scorer: Any, tables: Sequence[Any], kind: Literal["bs", "ar"], samples: int
) -> list[Any]:
    """Return what sacreBLEU finds of each system; a first one alone gets its interval."""
    # Not the interval of `corpus_score(..., n_bootstrap=)`, which fails where a resample scores 0.
    from sacrebleu.significance import PairedTest

    systems = [(str(number), table) for number, table in enumerate(tables)]
    metrics: dict[str, Any] = {"": _Counted(scorer)}
    test = PairedTest(systems, metrics, None, kind, samples)
    [found] = [row for name, row in test()[1].items() if name != "System"]
    return found


class _Mean:
    """As sacreBLEU's tests ask metrics: sentences that have a score and count as one each."""

    def _aggregate_and_compute(self, table: Any) -> SimpleNamespace:
        return self._compute_score_from_stats(np.sum(table, axis=0))

    def _compute_score_from_stats(self, sums: Any) -> SimpleNamespace:
        return SimpleNamespace(name="", score=sums[0] / sums[1])


class _Counted:
    """A metric of sacreBLEU's that is given each sentence's statistics, not its hypothesis."""

    def __init__(self, scorer: Any) -> None:
        self._scorer = scorer

    def _extract_corpus_statistics(self, table: Any, references: Any) -> Any:
        return table

    def get_signature(self) -> Any:
        return SimpleNamespace(update=lambda name, value: None)  # says how the test was done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)


def score_set(
    name: str,
    systems: Mapping[str, Sequence[Sequence[str]]],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str],
    *,
    target_language: str,
) -> SetScores:
    """Score systems, by name, on a test set; see `score_systems`.

    Sentences are counted as better or worse by their mean chrF2 over a system's runs.
    """
    tables = [
        score_systems(metric, [*systems.values()], references, target_language=target_language)
        for metric in metrics
    ]
    by_system = [list(scores) for scores in zip(*tables, strict=True)]
    compared = []
    if len(systems) > 1:
        first, *others = (_mean_chrf(runs, references) for runs in systems.values())
        for system, scores, own in zip([*systems][1:], by_system[1:], others, strict=True):
            signs = [(mine > its) - (mine < its) for mine, its in zip(own, first, strict=True)]
            counts = (signs.count(sign) for sign in (1, 0, -1))
            compared.append(SystemScores(system, scores, *counts))
    return SetScores(name, len(references[0]), next(iter(systems)), by_system[0], compared)


def _mean_chrf(runs: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> list[float]:
    tables = [sentence_scores("chrf", run, references, target_language="und") for run in runs]
    # Exactly, so that the mean of a number with itself is that number.
    return [mean(values) for values in zip(*tables, strict=True)]


def _check_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not references:
        raise MTError("no reference to score against: give at least one")
    for number, stream in enumerate(references, 1):
        if len(stream) != len(hypotheses):
            which = f" {number}" if len(references) > 1 else ""
            raise MTError(
                f"{len(hypotheses)} hypotheses but {len(stream)} lines in reference{which}: "
                "each line needs its translation"
            )
    if not hypotheses:
        raise MTError("nothing to score: there are no sentences")


# -- Tokenizers ------------------------------------------------------------------------------------

_MECAB = {"ja": ("ja-mecab", "MeCab"), "ko": ("ko-mecab", "mecab_ko")}
_BY_CHARACTER = ("ja", "ko", "th", "lo", "km", "my")


def bleu_tokenizer(target_language: str) -> str:
    """Return the name of sacreBLEU's BLEU tokenizer for a language code such as `de` or `zh-TW`.

    `zh` for Chinese; for Japanese and Korean the MeCab tokenizers, as in sacreBLEU, where their
    optional packages are installed; `char` for these otherwise and for Thai, Lao, Khmer and
    Burmese, which put no spaces between words; `13a`, sacreBLEU's default, for all others.
    """
    language = _primary(target_language)
    if language in ("zh", "yue"):
        return "zh"
    if language in _MECAB:
        tokenizer, package = _MECAB[language]
        if find_spec(package) is not None:
            return tokenizer
    return "char" if language in _BY_CHARACTER else "13a"


def _primary(language: str) -> str:
    """`pt-BR` and `pt_BR` are `pt`."""
    return re.split("[-_]", language.lower())[0]


class LcTok:
    """The preprocessing behind the published Multi30k scores, as in that data set's scripts.

    Lower-case, normalise the punctuation, tokenise, in this order and with Moses' rules (here
    through sacremoses), but without Moses' `&apos;`-like escapes.
    """

    def __init__(self, language: str) -> None:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer

        code = _primary(language)
        # Exact parity with the Perl scripts: they made the references that others published on.
        normalizer = MosesPunctNormalizer(lang=code, perl_parity=True)
        self._normalize: Callable[[str], str] = normalizer.normalize
        self._tokenize: Callable[..., str] = MosesTokenizer(lang=code).tokenize

    def __call__(self, line: str) -> str:
        """Return a raw line lower-cased, normalised and tokenised."""
        # The Perl scripts see a line with its newline, and one rule (a full stop before a closing
        # quotation mark) wants a character there.
        return self._tokenize(self._normalize(line.lower() + "\n"), escape=False, return_str=True)

    def references(self, lines: Sequence[str]) -> list[str]:
        """Return references ready to be scored against, whether given raw or tokenised.

        The escapes of Moses are undone. Raw lines then go through the same chain as a hypothesis;
        tokenised ones are only lower-cased, for a second tokenising would split `d' eau` and
        `man 's` once more.
        """
        plain = [unescape(line) for line in lines]
        if self._are_tokenized(plain):
            return [_spaced(line.lower()) for line in plain]
        return [self(line) for line in plain]

    def _are_tokenized(self, lines: Sequence[str]) -> bool:
        """Whether most lines that tell have the form that this tokenizer gives.

        A line tells where the chain would change it. A tokenised one comes back as it was once
        its apostrophes are joined again (`d' eau` to `d'eau`); a raw one does not.
        Where no line tells, both treatments give the same text.
        """
        votes = 0
        for line in lines:
            given = _spaced(line.lower())
            if self(given) != given:
                votes += 1 if self(_join_apostrophes(given)) == given else -1
        return votes > 0


def unescape(line: str) -> str:
    """Undo the escapes of Moses' tokenizer, such as `&apos;`."""
    for escape, character in _ESCAPES:
        line = line.replace(escape, character)
    return line


_ESCAPES = (
    ("&#124;", "|"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&apos;", "'"),
    ("&quot;", '"'),
    ("&#91;", "["),
    ("&#93;", "]"),
    ("&amp;", "&"),  # last, for `&amp;lt;` stands for `&lt;`
)
_HALF_APOSTROPHE = re.compile(r"(?<=\w) '(?=\w)|(?<=\w)' (?=\w)")


def _join_apostrophes(line: str) -> str:
    return _HALF_APOSTROPHE.sub("'", line)


def _spaced(line: str) -> str:
    return " ".join(line.split())


# -- Placeholders ----------------------------------------------------------------------------------


def placeholder_fidelity(sources: Sequence[str], hypotheses: Sequence[str]) -> tuple[int, int]:
    """Count the sentences that keep their placeholders, and those that have any.

    Placeholders are those of `mt.placeholders`. A sentence keeps them where its translation holds
    each as often as the source does.
    Raises MTError where the counts of lines differ.
    """
    if len(sources) != len(hypotheses):
        raise MTError(f"{len(sources)} source lines but {len(hypotheses)} hypotheses")
    kept = total = 0
    for source, hypothesis in zip(sources, hypotheses, strict=True):
        wanted = Counter(PLACEHOLDER.findall(source))
        if wanted:
            total += 1
            kept += wanted == Counter(PLACEHOLDER.findall(hypothesis))
    return kept, total


# -- scores.json -----------------------------------------------------------------------------------


def scores_json(sets: Sequence[SetScores]) -> str:
    """Return the text of a `scores.json`, with a newline at its end."""
    content = {
        "version": 1,
        "sets": [
            {
                **one._asdict(),
                "scores": [_fields(score, first=True) for score in one.scores],
                "others": [
                    {**other._asdict(), "scores": [_fields(s, first=False) for s in other.scores]}
                    for other in one.others
                ],
            }
            for one in sets
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _fields(score: Score, first: bool) -> dict[str, Any]:
    """All but what only some have: p-values those after the first system, runs such of several."""
    fields = score._asdict()
    dropped = [] if score.runs else ["runs"]
    if first:
        dropped += ["p_bootstrap", "p_randomization"]
    return {name: value for name, value in fields.items() if name not in dropped}
