"""Runs with teachers: who is trained first, what they add to the text, and how they go on."""

from __future__ import annotations

import csv
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import WORDS, Command, Run, train_here, translate

from mt import Translator
from mt.bundle import load_bundle, save_bundle
from mt.errors import MTError
from mt.options import parse_train, teacher_recipe
from mt.tokenizer import UNK
from mt.training.train import train

PAIRS = 800
SHORT = ("--distillation.teacher", "{trainer: {max_steps: 12}}", "--trainer.max_steps", 6)
BOTH = ("--distillation.forward", 1, "--distillation.backward", 1)


@pytest.fixture
def go(project: Path, tmp_path: Path) -> Any:
    """Train the recipe in this process, with options; return the run's folder."""

    def go(*overrides: object, name: str = "run") -> Path:
        return train_here(project, tmp_path / name, *overrides)

    return go


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def epochs(folder: Path) -> float:
    """How often the text has been seen."""
    with open(folder / "metrics.csv", newline="") as file:
        return float(list(csv.DictReader(file))[-1]["epoch"])


def test_teachers_learn_first_and_the_student_from_them(go: Any, project: Path) -> None:
    most = ("--distillation.teacher", "{trainer: {max_epochs: 40}}")
    folder = go(*BOTH, *most, "--trainer.max_epochs", 8)
    forward, backward = (folder / "teachers" / name for name in ("forward-1", "backward-1"))
    for teacher, text in ((forward, "mur tilo"), (backward, "ba ce")):
        assert (teacher / "report.html").exists()
        given = "ba ce" if teacher is forward else "mur tilo"
        assert Translator.load(teacher / "bundle").translate([given]) == [text]
    sources, targets = (lines(project / f"text/train.{side}") for side in ("xx", "yy"))
    theirs = lines(forward / "translations/00000.txt"), lines(backward / "translations/00000.txt")
    assert len(theirs[0]) == len(theirs[1]) == PAIRS
    right = sum(a == b for a, b in zip(theirs[0], targets, strict=True))
    assert right > 0.9 * PAIRS
    assert sum(a == b for a, b in zip(theirs[1], sources, strict=True)) > 0.9 * PAIRS
    card = (folder / "bundle/README.md").read_text()
    assert "800 (forward-1), 800 (backward-1)" in card
    test = lines(project / "text/test.xx")
    said = Translator.load(folder / "bundle").translate(test)
    assert sum(line == translate(text) for text, line in zip(test, said, strict=True)) > 20


def test_the_student_sees_what_its_options_say(go: Any, run: Run) -> None:
    six = ("--trainer.max_steps", 6)
    alone = go(*six, name="alone")
    assert not (alone / "teachers").exists()
    taught = go(*six, "--distillation.teachers", f"[{run.bundle}]", name="taught")
    assert epochs(taught) == pytest.approx(epochs(alone) / 2, rel=0.1)
    only = ("--distillation.original", "false")
    taught = go(*six, "--distillation.teachers", f"[{run.bundle}]", *only, name="only")
    assert epochs(taught) == pytest.approx(epochs(alone), rel=0.1)


def test_teachers_of_a_kind_begin_from_other_weights(go: Any) -> None:
    folder = go("--distillation.forward", 2, *SHORT)
    names = ("forward-1", "forward-2")
    first, second = (lines(folder / f"teachers/{name}/translations/00000.txt") for name in names)
    assert first != second


def test_bundles_teach_in_their_direction(go: Any, run: Run, project: Path) -> None:
    teach = ("--distillation.teachers", f"[{run.bundle}]", "--distillation.original", "false")
    folder = go(*teach, "--trainer.max_steps", 2)
    theirs = folder / "teachers/bundle-1/translations/00000.txt"
    sources = lines(project / "text/train.xx")
    teacher = Translator.load(run.bundle, "cpu")
    wanted = teacher.translate(sources, replace(teacher.options, beam_size=5))
    assert lines(theirs) == wanted
    assert str(run.bundle) not in (folder / "bundle/README.md").read_text()
    # The other way, the same bundle translates the targets; their translations are sources.
    swap = ("--corpus.source", "yy", "--corpus.target", "xx")
    other = go(*teach, *swap, "--trainer.max_steps", 2, name="other")
    assert lines(other / "teachers/bundle-1/translations/00000.txt") == lines(theirs)
    assert "800 (bundle-1)" in (other / "bundle/README.md").read_text()


def test_a_run_may_learn_from_the_bundle_that_it_replaces(
    go: Any, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    folder = go(
        "--overwrite",
        "--distillation.teachers",
        f"[{tmp_path / 'run/bundle'}]",
        "--trainer.max_steps",
        2,
    )
    assert len(lines(folder / "teachers/bundle-1/translations/00000.txt")) == PAIRS


def test_a_killed_run_goes_on_where_it_was(go: Any, tmp_path: Path) -> None:
    straight = go(*BOTH, *SHORT)
    weights = (straight / "bundle/model.safetensors").read_bytes()
    # As if it had been killed in the second teacher's training, at its first checkpoint …
    shutil.copytree(straight, tmp_path / "early")
    for name in ("bundle", "scores.json", "checkpoints", "metrics.csv"):
        remove(tmp_path / "early" / name)
    for name in ("scores.json", "translations", "checkpoints/step-12.ckpt"):
        remove(tmp_path / "early/teachers/backward-1" / name)
    # … and while the first teacher translated.
    shutil.copytree(tmp_path / "early", tmp_path / "earlier")
    remove(tmp_path / "earlier/teachers/backward-1")
    remove(tmp_path / "earlier/teachers/forward-1/translations")
    kept = tmp_path / "early/teachers/forward-1/translations/00000.txt"
    before = kept.stat().st_mtime_ns
    for name in ("early", "earlier"):
        folder = go(*BOTH, *SHORT, "--resume", name=name)
        assert (folder / "bundle/model.safetensors").read_bytes() == weights
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(MTError, match="`distillation` differs"):
        go(*BOTH, *SHORT, "--resume", "--distillation.beam_size", 2)
    go("--overwrite", "--trainer.max_steps", 2)
    assert not (straight / "teachers").exists()


def remove(path: Path) -> None:
    assert path.exists()
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def test_two_processes_teach_together(mt: Command, project: Path, tmp_path: Path) -> None:
    words = ["train", "recipes/tiny.yaml", "--output", tmp_path / "run", *BOTH, *SHORT]
    done = mt(*words, "--trainer.devices", 2, "--trainer.strategy", "ddp", cwd=project)
    assert done.status == 0, done.err
    for teacher in ("forward-1", "backward-1"):
        found = lines(tmp_path / "run/teachers" / teacher / "translations/00000.txt")
        assert len(found) == PAIRS
        assert done.err.count(f"{teacher} is trained first") == 1
    # Their shares are in the order of the text.
    teacher = Translator.load(tmp_path / "run/teachers/backward-1/bundle", "cpu")
    options = replace(teacher.options, beam_size=5)
    alone = teacher.translate(lines(project / "text/train.yy")[:100], options)
    assert sum(a == b for a, b in zip(found, alone, strict=False)) > 90


def test_a_teachers_recipe_is_the_runs_own_but_for_its_changes(project: Path) -> None:
    words = [str(project / "recipes/tiny.yaml"), "--model.hidden_size", "40"]
    words += ["--distillation.teacher", "{model: {embedding_size: 16}, trainer: {max_epochs: 3}}"]
    recipe = parse_train(words).recipe
    teacher = teacher_recipe(recipe)
    assert (teacher.model.embedding_size, teacher.model.hidden_size) == (16, 40)
    assert (recipe.model.embedding_size, recipe.trainer["max_epochs"]) == (32, 24)
    assert teacher.trainer["max_epochs"] == 3
    assert teacher.trainer["log_every_n_steps"] == 10
    assert teacher.training == recipe.training
    assert teacher.corpus == recipe.corpus


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("teacher", "{corpus: {source: a}}"), "distillation.teacher: corpus cannot differ"),
        (("teacher", "{model: {hidden_size: x}}"), "distillation.teacher: model.hidden_size"),
        (("teacher", "{model: {hidden_size: 0}}"), "distillation.teacher: model.hidden_size"),
        (("teacher", "{model: 3}"), "distillation.teacher: model: 3 is no mapping"),
        (("teacher", "{trainer: {max_epoch: 3}}"), "max_epoch"),
        (("original", "false"), "leaves nothing to train on"),
        (("forward", "-1"), "distillation.forward"),
        (("beam_size", "0"), "distillation.beam_size"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(
    project: Path, options: tuple[str, str], message: str
) -> None:
    words = [str(project / "recipes/tiny.yaml"), f"--distillation.{options[0]}", options[1]]
    with pytest.raises(MTError, match=message):
        parse_train(words)


def test_a_mistake_in_the_teachers_budget_leaves_what_is_there(
    go: Any, run: Run, tmp_path: Path
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    wrong = ("--distillation.teacher", "{trainer: {max_time: soon}}")
    with pytest.raises(MTError, match=r"distillation\.teacher: trainer\.max_time"):
        go(*BOTH, *wrong, "--overwrite")
    assert (tmp_path / "run/scores.json").exists()


def test_mistakes_about_bundles_are_told(go: Any, run: Run, tmp_path: Path) -> None:
    with pytest.raises(MTError, match="train teachers from the start"):
        go("--init-from", run.bundle, "--distillation.forward", 1)
    no_text = ("--corpus.files", tmp_path / "no-text")  # which is looked for after the bundles
    with pytest.raises(MTError, match="nowhere"):
        go("--distillation.teachers", f"[{tmp_path / 'nowhere'}]", *no_text)
    config = tmp_path / "bundle"
    shutil.copytree(run.bundle, config)
    text = (config / "config.json").read_text()
    (config / "config.json").write_text(text.replace('"xx"', '"zz"'))
    with pytest.raises(MTError, match="from zz to yy; name a bundle between xx and yy"):
        go("--distillation.teachers", f"[{config}]", *no_text)
    assert not (tmp_path / "run").exists()


# Back-translation


@pytest.fixture
def alone(project: Path, tmp_path: Path) -> Path:
    """Text in yy alone: new sentences, one twice, one with a bell, and one of the test set's."""
    generator = random.Random(9)
    known = set(lines(project / "text/train.xx"))
    new = [" ".join(generator.choices(list(WORDS), k=4)) for _ in range(300)]
    new = [text for text in dict.fromkeys(new) if text not in known][:200]
    texts = [translate(text) for text in new]
    odd = [texts[0], "mur\x07 tilo", "", lines(project / "text/test.yy")[0]]
    file = tmp_path / "alone.yy"
    file.write_text("".join(f"{text}\n" for text in [*texts, *odd]))
    return file


def test_a_trial_looks_at_no_test_text(project: Path, tmp_path: Path) -> None:
    words = [project / "recipes/tiny.yaml", "--distillation.forward", 1, *SHORT]
    recipe = parse_train(list(map(str, words))).recipe
    train(recipe, tmp_path / "run", observe=lambda step, measured: False)
    assert (tmp_path / "run/bundle").is_dir()
    assert (tmp_path / "run/teachers/forward-1/bundle").is_dir()
    assert not list((tmp_path / "run").rglob("scores.json"))


def test_text_of_the_target_language_is_translated_back(go: Any, alone: Path) -> None:
    most = ("--distillation.teacher", "{trainer: {max_epochs: 40}}")
    folder = go("--back_translation.files", alone, *most, "--trainer.max_epochs", 8)
    teacher = folder / "teachers/back-translation"
    assert Translator.load(teacher / "bundle").languages == ("yy", "xx")
    theirs = lines(teacher / "translations/00000.txt")
    texts = lines(alone)[:200]
    assert len(theirs) == 200
    assert sum(translate(back) == text for back, text in zip(theirs, texts, strict=True)) > 150
    bundle = load_bundle(folder / "bundle")
    assert "200 (back-translation)" in bundle.card
    # The tag is a token of its own, and the text of users needs none.
    assert bundle.tokenizers.source.encode(["<BT>"])[0][-1:] == [
        bundle.tokenizers.source.processor.piece_to_id("<BT>")
    ]
    assert Translator(bundle, "cpu").translate(["ba ce"]) == ["mur tilo"]
    recipe = (folder / "recipe.yaml").read_text()
    assert str(alone) in recipe
    assert str(alone) not in bundle.card


def test_a_given_bundle_translates_back(go: Any, run: Run, alone: Path, tmp_path: Path) -> None:
    given = load_bundle(run.bundle)
    turned = given._replace(languages=given.languages[::-1])
    save_bundle(turned, tmp_path / "turned")
    words = ("--back_translation.files", alone, "--trainer.max_steps", 6)
    folder = go(*words, "--back_translation.bundle", tmp_path / "turned", "--back_translation.tag=")
    assert not (folder / "teachers/back-translation/bundle").exists()
    assert epochs(folder) < epochs(go("--trainer.max_steps", 6, name="less"))
    assert load_bundle(folder / "bundle").tokenizers.source.processor.piece_to_id("<BT>") == UNK
    alone.write_text(alone.read_text() + "mur mur mur mur\n")
    with pytest.raises(MTError, match="the text is not that of the run"):
        go(
            *words,
            "--back_translation.bundle",
            tmp_path / "turned",
            "--back_translation.tag=",
            "--resume",
        )
    with pytest.raises(MTError, match="translates from xx to yy; name one from yy to xx"):
        go(*words, "--back_translation.bundle", run.bundle, name="wrong")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--back_translation.bundle", "x"], "there is nothing to translate back"),
        (["--back_translation.tag", "a b"], "back_translation.tag: must hold no blank"),
        (["--back_translation.beam_size", "0"], "back_translation.beam_size: must be at least 1"),
        (["--back_translation.files", "x", "--init_from", "y"], "which init_from does not"),
        (
            ["--back_translation.files", "none.yy", "--corpus.files", "no-text"],
            "cannot read .*none.yy",
        ),
        (["--back_translation.files", "blank.yy"], "blank.yy: cleaning left no training line"),
    ],
)
def test_mistakes_in_back_translation_are_told(
    go: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    (tmp_path / "blank.yy").write_text("\n \n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MTError, match=message):
        go(*options)
    assert not (tmp_path / "run/checkpoints").exists()
