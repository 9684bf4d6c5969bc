"""Corpus scores, each with the sacreBLEU signature that says exactly what was measured.

Importing this module is cheap: sacreBLEU and sacremoses are loaded by the first score.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from mt.errors import MTError
from mt.files import write_atomically
from mt.placeholders import PLACEHOLDER

METRICS = ("bleu", "chrf", "ter", "bleu-lc-tok")
"""Names of the metrics that `corpus_score` knows."""

RESAMPLES = 1000
"""Bootstrap resamples of a confidence interval."""

MAX_RESAMPLED = 10_000
"""Sentences of the largest test set that gets an interval: memory grows with resamples x sentences,
and the interval of a larger one is narrow."""


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


class SetScores(NamedTuple):
    """The scores of one test set."""

    name: str
    """Name of the test set, such as `test`."""
    sentences: int
    """Number of sentences scored."""
    scores: list[Score]
    """One entry per metric."""


def corpus_score(
    metric: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    target_language: str,
    interval: bool = False,
) -> Score:
    """Score `hypotheses` against one or more reference streams, each a list of as many sentences.

    `bleu` (BLEU, Papineni et al. 2002), `chrf` (chrF2, Popović 2015) and `ter` (Snover et al. 2006)
    are those of the `sacrebleu` command, as are their intervals; BLEU's tokenizer follows
    `target_language` as described at `bleu_tokenizer`. `bleu-lc-tok` is the score of the Multi30k
    papers: see `LcTok`. `interval` asks for the confidence interval, which takes seconds.

    Raises MTError where the metric is unknown, nothing is given, or the counts differ.
    """
    if metric not in METRICS:
        raise MTError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    _check_counts(hypotheses, references)
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    scorer: BLEU | CHRF | TER
    if metric == "bleu-lc-tok":
        lc_tok = LcTok(target_language)
        hypotheses = [lc_tok(line) for line in hypotheses]
        references = [lc_tok.references(stream) for stream in references]
        # `force` silences the warning about tokenised text, which is what we mean to score.
        scorer = BLEU(tokenize="none", force=True)
    elif metric == "bleu":
        scorer = BLEU(tokenize=bleu_tokenizer(target_language))
    elif metric == "chrf":
        scorer = CHRF()
    else:
        scorer = TER()
    score = float(scorer.corpus_score(hypotheses, references).score)
    signature = str(scorer.get_signature())
    if metric == "bleu-lc-tok":
        signature = signature.replace("case:mixed", "case:lc")
        signature = signature.replace("tok:none", f"tok:moses-lc-norm-{_primary(target_language)}")
    resampled = interval and 1 < len(hypotheses) <= MAX_RESAMPLED
    between = _interval(scorer, hypotheses, references) if resampled else None
    return Score(metric, score, signature, between)


def _interval(
    scorer: Any, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, float]:
    # Not the interval of `corpus_score(..., n_bootstrap=)`, which fails where a resample scores 0.
    from sacrebleu.significance import PairedTest

    systems: list[tuple[str, Sequence[str]]] = [("", hypotheses)]
    streams = list(map(list, references))
    results: dict[str, list[Any]] = PairedTest(systems, {"": scorer}, streams, "bs", RESAMPLES)()[1]
    [[found]] = [row for name, row in results.items() if name != "System"]
    return float(found.mean - found.ci), float(found.mean + found.ci)


def score_set(
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str],
    *,
    target_language: str,
) -> SetScores:
    """Score a test set by each of `metrics`, with intervals; the rest is as for `corpus_score`."""
    scores = [
        corpus_score(metric, hypotheses, references, target_language=target_language, interval=True)
        for metric in metrics
    ]
    return SetScores(name, len(hypotheses), scores)


def sentence_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return the chrF2 of each sentence, 0 to 100.

    Unlike BLEU it is meaningful for a single sentence, so it can rank them.
    Raises MTError where the counts differ.
    """
    _check_counts(hypotheses, [references])
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    pairs = zip(hypotheses, references, strict=True)
    return [
        float(chrf.sentence_score(hypothesis, [reference]).score) for hypothesis, reference in pairs
    ]


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
                "name": one.name,
                "sentences": one.sentences,
                "scores": [score._asdict() for score in one.scores],
            }
            for one in sets
        ],
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def write_scores(path: str | Path, sets: Sequence[SetScores]) -> None:
    """Write `scores.json` in one step: a reader sees the old file or the new one, whole.

    Raises MTError where it cannot be written.
    """
    write_atomically(Path(path), scores_json(sets))
