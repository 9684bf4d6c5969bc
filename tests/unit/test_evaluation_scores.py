from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy
import pytest
import sacrebleu

from mt.errors import MTError
from mt.evaluation import scores
from mt.evaluation.scores import (
    MAX_RESAMPLED,
    LcTok,
    Score,
    SetScores,
    SystemScores,
    corpus_score,
    placeholder_fidelity,
    score_means,
    score_set,
    score_systems,
    sentence_scores,
)
from mt.evaluation.systems import SetFiles, find_languages
from mt.evaluation.tables import latex, markdown, note, score_rows

METRIC_NAMES = [("bleu", "BLEU"), ("chrf", "chrF2"), ("ter", "TER")]

HYPOTHESES = [
    "Ein Mann schläft auf einer grünen Couch.",
    "Zwei junge Männer sind im Freien, in der Nähe vieler Büsche.",
    "",
    'Der Junge sagt: "Komm!"',
]
REFERENCES = [
    "Ein Mann schläft in einem grünen Raum auf einem Sofa.",
    "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    "Ein Hund rennt.",
    "Der Junge sagt: „Komm!“",
]
OTHERS = ["Ein Mann schläft.", "Zwei Männer sind im Freien.", "Der Hund läuft.", "Er sagt: Komm!"]


def test_importing_the_module_loads_no_heavy_package() -> None:
    heavy = ("torch", "lightning", "datasets", "sacrebleu", "sacremoses", "matplotlib")
    code = f"""
import sys, mt.evaluation.scores, mt.evaluation.report
print([name for name in {heavy!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_scores_equal_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    files = []
    for name, lines in (("hyp", HYPOTHESES), ("ref", REFERENCES), ("other", OTHERS)):
        files.append(tmp_path / name)
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(files[1]), str(files[2])]
    command += ["-i", str(files[0]), "-m", "bleu", "chrf", "ter", "-w", "10"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {entry["name"]: entry for entry in json.loads(result.stdout)}
    for metric, name in METRIC_NAMES:
        ours = corpus_score(metric, HYPOTHESES, [REFERENCES, OTHERS], target_language="de")
        assert ours.score == pytest.approx(theirs[name]["score"], abs=1e-9)
        assert ours.signature == theirs[name]["signature"]


def test_intervals_are_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    hypotheses, references = 9 * HYPOTHESES, 9 * REFERENCES  # where a resample has 0, it fails
    for name, lines in (("hyp", hypotheses), ("ref", references)):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(tmp_path / "ref")]
    command += ["-i", str(tmp_path / "hyp"), "-m", "bleu", "chrf", "-w", "10", "--confidence"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {entry["name"]: entry for entry in json.loads(result.stdout)}
    metrics = ("bleu", "chrf", "ter")
    systems = {"ours": [hypotheses]}
    ours = score_set("test", systems, [references], metrics, target_language="de").scores
    for score, name in zip(ours[:2], ("BLEU", "chrF2"), strict=True):
        middle, half = theirs[name]["confidence_mean"], theirs[name]["confidence_var"]
        assert half > 1
        assert score.interval == pytest.approx((middle - half, middle + half), abs=1e-5)
    low, high = ours[2].interval or (0, 0)
    assert low < ours[2].score < high


def test_an_interval_is_left_out_where_it_says_nothing_or_costs_too_much() -> None:
    for count, given in ((1, False), (2, True), (MAX_RESAMPLED, True), (MAX_RESAMPLED + 1, False)):
        lines = ["Ein Hund ."] * count
        [score] = score_systems("bleu", [[lines]], [lines], target_language="de")
        assert (score.interval is not None) is given
    assert corpus_score("bleu", lines, [lines], target_language="de").interval is None


def test_unequal_counts_are_named() -> None:
    with pytest.raises(MTError, match="4 hypotheses but 3 lines in reference 2"):
        corpus_score("bleu", HYPOTHESES, [REFERENCES, OTHERS[:3]], target_language="de")
    with pytest.raises(MTError, match="2 hypotheses but 4 lines in reference:"):
        sentence_scores("chrf", HYPOTHESES[:2], [REFERENCES], target_language="de")


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(MTError, match="unknown metric 'bleurt'"):
        corpus_score("bleurt", HYPOTHESES, [REFERENCES], target_language="de")
    with pytest.raises(MTError, match="no reference"):
        corpus_score("bleu", HYPOTHESES, [], target_language="de")
    with pytest.raises(MTError, match="nothing to score"):
        corpus_score("bleu", [], [[]], target_language="de")


def test_tokenizer_follows_the_target_language() -> None:
    chinese = corpus_score("bleu", ["我喜欢猫。"], [["我喜欢狗。"]], target_language="zh-TW")
    assert "|tok:zh|" in chinese.signature
    assert chinese.score > 0
    assert scores.bleu_tokenizer("pt_BR") == "13a"
    assert scores.bleu_tokenizer("th") == "char"
    assert scores.bleu_tokenizer("ja") in ("char", "ja-mecab")


@pytest.mark.parametrize("packed", ["", ".gz", ".xz", ".zst"])
def test_languages_stand_in_the_names_of_files(packed: str) -> None:
    files = SetFiles("test", Path("test.en" + packed), [Path(f"test.pt-BR{packed}")])
    assert find_languages([], files, None) == ("en", "pt-BR")
    with pytest.raises(MTError, match="its language is unknown"):
        find_languages([], SetFiles("test", files.source, [Path("test" + packed)]), None)


def test_japanese_is_scored_by_character_without_mecab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda name: None)
    score = corpus_score("bleu", ["雨が降る。"], [["雪が降る。"]], target_language="ja")
    assert "|tok:char|" in score.signature


@pytest.mark.parametrize("metric", ["bleu", "chrf", "chrf++", "ter"])
def test_sentences_are_scored_as_sacrebleu_scores_them(metric: str) -> None:
    scorer: Any = {
        "bleu": sacrebleu.sentence_bleu,
        "chrf": sacrebleu.sentence_chrf,
        "chrf++": partial(sacrebleu.sentence_chrf, word_order=2),
        "ter": sacrebleu.sentence_ter,
    }[metric]
    streams = [REFERENCES, OTHERS]
    ours = sentence_scores(metric, HYPOTHESES, streams, target_language="de")
    theirs = [scorer(line, [*both]).score for line, *both in zip(HYPOTHESES, *streams, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert len(set(ours)) > 1


# Raw lines, and what lower-case, normalise, tokenise makes of them, in the escaped form of files.
RAW_AND_TOKENIZED = {
    "de": [
        ("Ein Hund läuft, und ein Mann lacht.", "ein hund läuft , und ein mann lacht ."),
        ("Sie sagt: „Wie geht's?“", "sie sagt : &quot; wie geht &apos; s ? &quot;"),
        (
            "Auf dem Schild steht „Kaffee & Tee.“",
            "auf dem schild steht &quot; kaffee &amp; tee &quot; .",
        ),
    ],
    "en": [
        ("A man's dog doesn't bark.", "a man &apos;s dog doesn &apos;t bark ."),
        ("The boys' room – quite tidy…", "the boys &apos; room - quite tidy ..."),
        ("He calls it “home”.", "he calls it &quot; home . &quot;"),
    ],
    "fr": [
        ("L'homme qu'on voit n'est pas là.", "l&apos; homme qu&apos; on voit n&apos; est pas là ."),
        ("Une tasse d’eau, s’il vous plaît !", "une tasse d&apos; eau , s&apos; il vous plaît !"),
        ("Un chien court.", "un chien court ."),
    ],
    "cs": [
        ("Muž (vlevo) spí, žena čte.", "muž ( vlevo ) spí , žena čte ."),
        ("Říká: „Ahoj!“", "říká : &quot; ahoj ! &quot;"),
        ("Pes běží.", "pes běží ."),
    ],
}


@pytest.mark.parametrize("language", RAW_AND_TOKENIZED)
def test_raw_and_tokenized_references_come_out_equal(language: str) -> None:
    raw = [line for line, _ in RAW_AND_TOKENIZED[language]]
    tokenized = [line for _, line in RAW_AND_TOKENIZED[language]]
    expected = [scores.unescape(line) for line in tokenized]
    lc_tok = LcTok(language)
    assert [lc_tok(line) for line in raw] == expected
    assert lc_tok.references(raw) == expected
    assert lc_tok.references(tokenized) == expected
    assert lc_tok.references(expected) == expected
    for references in (raw, tokenized, expected):
        score = corpus_score("bleu-lc-tok", raw, [references], target_language=language)
        assert score.score == pytest.approx(100)


@pytest.mark.parametrize("language", RAW_AND_TOKENIZED)
def test_every_single_line_is_recognised_too(language: str) -> None:
    lc_tok = LcTok(language)
    for raw, tokenized in RAW_AND_TOKENIZED[language]:
        if raw == "The boys' room – quite tidy…":
            continue  # its lone apostrophe is the same in both forms
        assert lc_tok.references([raw]) == lc_tok.references([tokenized])


def test_lc_tok_is_plain_bleu_of_the_prepared_text() -> None:
    from sacrebleu.metrics.bleu import BLEU

    lc_tok = LcTok("de")
    prepared = [[lc_tok(line) for line in lines] for lines in (HYPOTHESES, REFERENCES)]
    expected = BLEU(tokenize="none", force=True).corpus_score(prepared[0], [prepared[1]]).score
    ours = corpus_score("bleu-lc-tok", HYPOTHESES, [REFERENCES], target_language="de")
    assert ours.score == expected
    assert ours.signature.startswith("nrefs:1|case:lc|eff:no|tok:moses-lc-norm-de|smooth:exp|")


def test_lc_tok_ignores_case_and_kind_of_quotes() -> None:
    score = corpus_score(
        "bleu-lc-tok", ['er sagt: "komm jetzt"'], [["Er sagt: „Komm jetzt“"]], target_language="de"
    )
    assert score.score == pytest.approx(100)


def test_placeholders() -> None:
    sources = [
        "Delete {count} of {total}",
        "Delete {count} of {total}",
        "Hello %s, %d left, 100% sure",
        "%1 of %2",
        "No placeholder, 50 % off",
        "{name} {name}",
        "Open %PRODUCTNAME",
        "{{ jinja }} and {{jinja}}",
    ]
    hypotheses = [
        "{total}: {count} löschen",
        "{total}: {zahl} löschen",
        "Hallo %s, %d übrig, 100 % sicher",
        "%1 von %1",
        "Kein Platzhalter",
        "{name}",
        "%PRODUCTNAME öffnen",
        "und {{jinja}}",
    ]
    assert placeholder_fidelity(sources, hypotheses) == (4, 7)
    assert placeholder_fidelity(["plain"], ["schlicht"]) == (0, 0)
    with pytest.raises(MTError, match="1 source lines but 2 hypotheses"):
        placeholder_fidelity(["a"], ["a", "b"])


def test_scores_file_has_exactly_the_agreed_form() -> None:
    other = SystemScores("theirs", [Score("ter", 51.0, "x", (49.0, 53.0), 0.5, 0.25)], 1, 0, 2)
    one = SetScores("test", 3, "ours", [Score("ter", 50.0, "x", (48.5, 51.0))], [other])
    assert json.loads(scores.scores_json([one, one._replace(others=())])) == {
        "version": 1,
        "sets": [
            {
                "name": "test",
                "sentences": 3,
                "system": "ours",
                "scores": [
                    {"metric": "ter", "score": 50.0, "signature": "x", "interval": [48.5, 51.0]},
                ],
                "others": others,
            }
            for others in (
                [
                    {
                        "name": "theirs",
                        "scores": [
                            {
                                "metric": "ter",
                                "score": 51.0,
                                "signature": "x",
                                "interval": [49.0, 53.0],
                                "p_bootstrap": 0.5,
                                "p_randomization": 0.25,
                            }
                        ],
                        "better": 1,
                        "equal": 0,
                        "worse": 2,
                    }
                ],
                [],
            )
        ],
    }


# -- Several systems -------------------------------------------------------------------------------

WORDS = ["Hund", "Katze", "Mann", "Frau", "läuft", "schläft", "schnell", "im", "Garten", "Straße"]


def noisy(share: float, seed: int) -> list[str]:
    """Eighty sentences, some of whose words are others than in `noisy(0, …)`."""
    text, noise = random.Random(0), random.Random(seed)
    return [
        " ".join(
            noise.choice(WORDS) if noise.random() < share else word
            for word in text.choices(WORDS, k=9)
        )
        for _ in range(80)
    ]


@pytest.mark.parametrize("kind", ["bs", "ar"])
def test_p_values_are_those_of_the_sacrebleu_command(tmp_path: Path, kind: str) -> None:
    references, systems = noisy(0, 0), [noisy(0.3, 1), noisy(0.33, 2), noisy(0.5, 3)]
    for name, lines in zip("rabc", [references, *systems], strict=True):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "r", "-i", "a", "b", "c", f"--paired-{kind}"]
    command += ["-m", "bleu", "chrf", "ter", "-f", "text"]  # its JSON fails on its own p-values
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    theirs = [float(p) for p in re.findall(r"p = (0\.\d+)", done.stdout)]
    for place, (metric, _) in enumerate(METRIC_NAMES):
        runs = [[lines] for lines in systems]
        first, *others = score_systems(metric, runs, [references], target_language="de")
        assert (first.p_bootstrap, first.p_randomization) == (None, None)
        ours = [one.p_bootstrap if kind == "bs" else one.p_randomization for one in others]
        assert ours == pytest.approx(theirs[place::3], abs=6e-5)
    assert min(theirs) < 0.01
    assert max(theirs) > 0.05


def test_equal_systems_do_not_differ() -> None:
    """`sacrebleu` calls them different: it counts greater differences than none."""
    lines = noisy(0.3, 1)
    _, twin = score_systems("bleu", [[lines], [lines]], [noisy(0, 0)], target_language="de")
    assert (twin.p_bootstrap, twin.p_randomization) == (1.0, 1.0)


def test_sentences_are_counted_as_better_equal_and_worse() -> None:
    systems = {"a": [["x", "ab", "ab", "ab"]], "b": [["ab", "ab", "ab", "x"]], "c": [["ab"] * 4]}
    one = score_set("test", systems, [["ab"] * 4], ["chrf++"], target_language="de")
    assert (one.system, one.sentences) == ("a", 4)
    assert [(o.name, o.better, o.equal, o.worse) for o in one.others] == [
        ("b", 1, 2, 1),
        ("c", 1, 3, 0),
    ]


def test_runs_alike_are_no_better_than_one() -> None:
    references, run = noisy(0, 0), noisy(0.3, 1)
    one = score_set("t", {"a": [run], "b": [run] * 3}, [references], ["chrf"], target_language="de")
    [other] = one.others
    assert (other.better, other.equal, other.worse) == (0, len(run), 0)


def test_tables_hold_every_system_and_escape_its_name() -> None:
    systems = {"a|b_&%": [noisy(0.3, 1)], "b": [noisy(0.5, 3)]}
    one = score_set("test", systems, [noisy(0, 0)], ["bleu", "ter"], target_language="de")
    rows = score_rows([one])
    assert rows[0][:3] == ["system", "BLEU", "TER"]
    bleu, ter = (score.score for score in one.scores)
    other = one.others[0]
    assert rows[1][1].startswith(f"{bleu:.1f} [")
    assert f", {other.scores[0].score - bleu:+.1f} (p <0.001 / <0.001)" in rows[2][1]
    assert f", {other.scores[1].score - ter:+.1f} (p " in rows[2][2]
    assert rows[2][3] == f"{other.better} / {other.equal} / {other.worse}"
    lines = markdown(rows).splitlines()
    assert lines[2].startswith(r"| a\|b_&% | ")
    assert {line.replace(r"\|", "").count("|") for line in lines} == {5}
    table = latex(rows)
    assert r"a\textbar{}b\_\&\% & " in table
    assert "$<$0.001" in table
    assert table.count(r"\\") == 3


def test_several_runs_have_a_mean_and_a_spread() -> None:
    references, other = noisy(0, 0), noisy(0.4, 9)
    runs = [noisy(0.3, seed) for seed in (1, 2, 3)]
    for metric, _ in METRIC_NAMES:
        alone = [corpus_score(metric, run, [references], target_language="de") for run in runs]
        ours, theirs = score_systems(metric, [runs, [other]], [references], target_language="de")
        assert ours.runs == pytest.approx([one.score for one in alone], abs=1e-9)
        assert ours.score == pytest.approx(mean(ours.runs))
        low, high = ours.interval or (0, 0)
        assert low < ours.score < high
        assert theirs.runs == ()
        assert (theirs.p_bootstrap or 1) < 0.05
    one = score_set("test", {"a": runs, "b": [other]}, [references], ["bleu"], target_language="de")
    spread = stdev(one.scores[0].runs)
    assert score_rows([one])[1][1].startswith(f"{one.scores[0].score:.1f} ± {spread:.1f} [")
    assert "± standard deviation" in note(one)


def test_scores_that_are_means_have_intervals_and_tests_too() -> None:
    random = numpy.random.default_rng(1)
    first = random.normal(80, 10, 400)
    same, better = first + random.normal(0, 5, 400), first + random.normal(2, 5, 400)
    systems = [[first], [same], [better], [first]]
    found = score_means("comet", "model:x", [[run.tolist() for run in runs] for runs in systems])
    assert [one.score for one in found] == pytest.approx([runs[0].mean() for runs in systems])
    draws = random.choice(first, (20_000, 400)).mean(axis=1)
    assert found[0].interval == pytest.approx(numpy.quantile(draws, [0.025, 0.975]), abs=0.15)
    assert found[0].p_bootstrap is None
    assert {one.signature for one in found} == {"model:x"}
    for kind in ("p_bootstrap", "p_randomization"):
        close, apart, equal = (getattr(one, kind) for one in found[1:])
        assert close > 0.05
        assert apart < 0.002
        assert equal == 1


def test_a_run_given_twice_is_the_run() -> None:
    """The same sentences, however often they were translated alike, say as much and no more."""
    references, first, second = noisy(0, 0), noisy(0.3, 1), noisy(0.33, 2)
    for metric, _ in METRIC_NAMES:
        once = score_systems(metric, [[first], [second]], [references], target_language="de")
        often = [
            score_systems(metric, systems, [references], target_language="de")
            for systems in ([[first] * 2, [second] * 2], [[first] * 3, [second]])
        ]
        for a, b in zip(once * 2, chain(*often), strict=True):
            assert b.score == pytest.approx(a.score)
            assert b.interval == pytest.approx(a.interval, abs=1e-3)
            assert b.p_bootstrap == pytest.approx(a.p_bootstrap, abs=2e-3)
            assert b.p_randomization == pytest.approx(a.p_randomization, abs=2e-3)
