"""Command lines and recipes to typed options, by jsonargparse."""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import yaml
from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, set_parsing_settings

from mt.errors import MTError
from mt.recipe import (
    RECIPES,
    BackTranslation,
    Distillation,
    Recipe,
    ShortlistOptions,
    TokenizerSpec,
    TranslationRecipe,
    map_paths,
)


@dataclass(frozen=True)
class Decoding:
    """How `mt translate`, `mt evaluate` and `mt compare` search. What is not given is as the
    bundle's recipe has it."""

    beam_size: int | None = None
    """Hypotheses kept for each sentence; 1 is greedy search (default: the recipe's, usually 5)."""
    length_penalty: float | None = None
    """Exponent of the length normalisation; 0 compares plain log-probabilities (default: the
    recipe's, usually 1.0)."""
    normalization: Literal["average", "gnmt"] | None = None
    """Divide a log-probability by `length ** length_penalty` (average) or by
    `((5 + length) / 6) ** length_penalty` (gnmt) (default: the recipe's, usually average)."""
    coverage_penalty: float | None = None
    """Weight of the coverage penalty (default: the recipe's, usually 0, off)."""
    no_repeat_ngram: int | None = None
    """Never repeat an n-gram of this many tokens (default: the recipe's, usually 0, off)."""
    min_length: int | None = None
    """Shortest translation, in target tokens (default: the recipe's, usually 0)."""
    min_length_ratio: float | None = None
    """Shortest translation, in target tokens for each source token (default: the recipe's,
    usually 0)."""
    max_length: int | None = None
    """Longest translation, in target tokens, never above 512; 0 is 2 x source + 10 (default: the
    recipe's, usually 0)."""
    max_length_ratio: float | None = None
    """Longest translation, in target tokens for each source token; 0 is no such limit (default:
    the recipe's, usually 0)."""
    shortlist: bool | None = None
    """Look among likely translations of the source's tokens only, where the bundle has a list of
    them (default: the recipe's, usually true)."""
    batch_tokens: int = 2048
    """Padded source tokens of a batch, before the beam; a longer sentence is a batch of its own."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    devices: int = 1
    """Processes: one for each of so many GPUs, or so many on the CPU."""
    threads: int = 0
    """CPU threads of each process; 0 shares the cores out."""
    engine: Literal["torch", "onnx"] = "torch"
    """What computes: PyTorch, or ONNX Runtime on the graphs that `mt export` has put into the
    bundle."""
    lm: Path | None = None
    """Bundle of a language model with the translator's tokens, which has a say in what is written
    (default: none)."""
    lm_weight: float = 0.2
    """Weight of the language model's log-probabilities."""
    lm_use: Literal["fusion", "rerank"] = "fusion"
    """`fusion`: ask the language model for each token; `rerank`: once for each of the beam's
    translations, which are ordered anew."""

    def search(self) -> dict[str, object]:
        """The search options by name, None where the bundle decides."""
        ours = {
            "batch_tokens",
            "device",
            "devices",
            "threads",
            "engine",
            "lm",
            "lm_weight",
            "lm_use",
        }
        return {name: value for name, value in vars(self).items() if name not in ours}


@dataclass(frozen=True)
class TranslateOptions:
    """The options of `mt translate` besides the search."""

    input: Path | None = None
    """File of source lines (default: standard input)."""
    output: Path | None = None
    """File of translations (default: standard output)."""
    n_best: int = 1
    """Translations of each line, best first; above 1 it needs `--format jsonl`."""
    format: Literal["text", "jsonl"] = "text"
    """`text`: a line each; `jsonl`: objects with source, and text, score, log_probability and
    tokens (end of sentence included) of each translation."""
    prefixes: Path | None = None
    """File whose line N is how the translation of line N must begin (default: none)."""


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `mt evaluate` besides the search."""

    source: Path | None = None
    """File of source lines (default: those of --test-set)."""
    reference: list[Path] = field(default_factory=list)
    """Files of reference translations, one or more (default: those of --test-set)."""
    test_set: list[str] = field(default_factory=list)
    """One or more test sets in place of source and reference, each as NAME=SOURCE,REFERENCE
    (default: none)."""
    metric: list[Literal["bleu", "chrf", "chrf++", "ter", "bleu-lc-tok", "comet"]] = field(
        default_factory=lambda: ["bleu", "chrf"]
    )
    """Scores to compute: bleu (cased, 13a), chrf (chrF2), chrf++ (chrF2++), ter, bleu-lc-tok
    (lower-cased, normalised and Moses-tokenised, as in the Multi30k papers), comet (where it is
    installed)."""
    comet_model: str = "Unbabel/wmt22-comet-da"
    """COMET's model: a checkpoint, or a name of the Hub's that has been downloaded."""
    baseline: str | None = None
    """Another bundle, or a file of translations from any toolkit, to compare with; several training
    runs of it as NAME=PATH,PATH (default: none)."""
    training_text: list[Path] = field(default_factory=list)
    """Files of training sources and their targets, to tell the familiar from the new (default:
    the text of the bundle's run, where it is at hand)."""
    beam_sizes: list[int] = field(default_factory=list)
    """Sizes of beams to compare in the report, such as 1 2 5 10 (default: none)."""
    output: Path | None = None
    """Folder of hypotheses.txt, scores.json, sentences.tsv, report.md and report.html (default:
    runs/evaluate/SOURCE_FILE_NAME, or with the names of the test sets)."""
    json: bool = False
    """Print the content of scores.json instead of a table."""


@dataclass(frozen=True)
class CompareOptions:
    """The options of `mt compare` besides the search of its bundles."""

    source: Path | None = None
    """File of source lines (default: those of --test-set)."""
    reference: list[Path] = field(default_factory=list)
    """File of reference translations; may be given several times (default: those of --test-set)."""
    test_set: list[str] = field(default_factory=list)
    """A test set in place of source and reference, as NAME=SOURCE,REFERENCE; may be given several
    times (default: none)."""
    metric: list[Literal["bleu", "chrf", "chrf++", "ter", "bleu-lc-tok", "comet"]] = field(
        default_factory=lambda: ["bleu", "chrf++", "ter"]
    )
    """Score to compute, as for `mt evaluate`; may be given several times."""
    comet_model: str = "Unbabel/wmt22-comet-da"
    """COMET's model: a checkpoint, or a name of the Hub's that has been downloaded."""
    training_text: list[Path] = field(default_factory=list)
    """File of training sources, and once more, of their targets, to tell the familiar from the
    new (default: the text of the first bundle's run, where it is at hand)."""
    target_language: str | None = None
    """Code of the language translated to, such as de, which decides how BLEU tells words apart
    (default: that of a bundle, else the ending of the reference's name)."""
    output: Path | None = None
    """Folder of scores.json, sentences.tsv, report.md, report.html and the translations of bundles
    (default: runs/compare/SOURCE_FILE_NAME, or with the names of the test sets)."""
    format: Literal["markdown", "latex", "json"] = "markdown"
    """How to print the scores."""


@dataclass(frozen=True)
class ScoreOptions:
    """The options of `mt score`."""

    target: Path
    """File of translations, or of text for a language model."""
    source: Path | None = None
    """File of the lines that were translated; a language model needs none (default: none)."""
    batch_tokens: int = 2048
    """Padded tokens of a batch."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class SelectOptions:
    """The options of `mt select`."""

    source: Path
    """File of source lines; its name ends in the language, such as `.en`."""
    target: Path
    """File of their translations, likewise."""
    output: Path
    """Stem of the files to write: OUTPUT.en and OUTPUT.de, say, and OUTPUT.scores, which has a line
    for each pair there was."""
    keep: float = 0.5
    """Share of the pairs to keep."""
    in_domain: Path | None = None
    """Bundle of a language model of the wanted kind of text, in either language (default: none)."""
    general: Path | None = None
    """Bundle of a language model of text in general, in the same language (default: none)."""
    forward: Path | None = None
    """Bundle that translates from source to target (default: none)."""
    backward: Path | None = None
    """Bundle that translates from target to source (default: none)."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class SweepSpec:
    """What `mt sweep` tries: the content of SPACE.yaml."""

    space: dict[str, Any]
    """By dotted name of a recipe's option, a list of values, or `{low: …, high: …}` with `step` or
    `log: true`."""
    method: Literal["tpe", "random", "grid"] = "tpe"
    """`tpe`: where values so far have been good (Bergstra et al. 2011); `random`; `grid`: every
    combination of lists and stepped ranges."""
    trials: int = 20
    """Trials in all; a grid has as many as it has combinations."""
    prune: bool = True
    """End a trial early whose score is below the median of the others' at the same validation."""
    folds: int = 0
    """Cross-validation: train each trial so many times, each time without another part of the
    training text, and take the mean; 0 trains once."""
    seed: int = 1
    """Seed of the search."""

    def __post_init__(self) -> None:
        if not self.space:
            raise MTError("space: empty; name an option and its values")
        if self.trials < 1:
            raise MTError(f"trials: must be at least 1, not {self.trials}")
        if self.folds < 0 or self.folds == 1:
            raise MTError(f"folds: must be at least 2, or 0 for none, not {self.folds}")


@dataclass(frozen=True)
class SweepOptions:
    """What `mt sweep` was asked to do."""

    recipe: Path
    spec: SweepSpec
    overrides: Sequence[str]
    """Options of the recipe, as on the command line."""
    output: Path


@dataclass(frozen=True)
class GenerateOptions:
    """The options of `mt generate`."""

    prompt: str = ""
    """Text to go on from (default: none)."""
    length: int = 100
    """Tokens to write at most."""
    number: int = 1
    """Texts to write."""
    temperature: float = 1.0
    """Below 1 the likely become likelier; 0 always takes the likeliest token."""
    top_k: int = 0
    """Draw among so many likeliest tokens only; 0 sets no limit."""
    top_p: float = 1.0
    """Draw among the fewest likeliest tokens that together have this probability; 1 sets no
    limit."""
    seed: int = 1
    """Seed of the draw."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class ClassifyOptions:
    """The options of `mt classify`."""

    input: Path | None = None
    """File of lines (default: standard input)."""
    output: Path | None = None
    """File of their classes (default: standard output)."""
    top: int = 1
    """Classes to name for each line, the likeliest first; at most all there are."""
    format: Literal["text", "jsonl"] = "text"
    """`text`: a line each, class and probability between tabs; `jsonl`: objects with text, and
    class and probability of each class."""
    batch_tokens: int = 8192
    """Padded tokens of a batch; a longer line is a batch of its own."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class ForecastOptions:
    """The options of `mt forecast`."""

    input: Path
    """CSV file of the series: a row of names, then a row for each time step; an empty cell or
    `nan` is a missing value."""
    horizon: int = 12
    """Time steps to forecast."""
    interval: float = 0.9
    """Probability of the prediction intervals."""
    samples: int = 1000
    """Paths that are drawn for the intervals."""
    seed: int = 1
    """Seed of the draw."""
    output: Path | None = None
    """CSV file of the forecasts (default: standard output)."""
    plot: Path | None = None
    """PNG file of a picture of them; needs the extra `forecast` (default: none)."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda or cuda:N."""
    threads: int = 0
    """CPU threads; 0 takes all cores."""


@dataclass(frozen=True)
class ExportOptions:
    """The options of `mt export`."""

    format: Literal["onnx"] = "onnx"
    """What to write: ONNX graphs of the encoder and of a decoding step."""
    quantize: Literal["none", "int8"] = "none"
    """`int8`: weights as 8-bit integers, a quarter of the size and faster, at a small cost in
    quality."""


@dataclass(frozen=True)
class TokenizerOptions:
    """The options of `mt tokenizer`."""

    input: list[Path] = field(default_factory=list)
    """Text files to train on, one sentence a line (default: the `input` list of SPEC)."""
    output: Path | None = None
    """The model file (default: SPEC with the ending .model)."""


set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the help of a recipe's fields


class _Parser(ArgumentParser):
    """Raises MTError with one line, where argparse would print a page."""

    file: ClassVar[Path | None] = None
    """What is being read, in place of the command line; parsers within this one know it too."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        if _Parser.file is not None:
            raise MTError(f"{_Parser.file}: {_one_line(message)}")
        program = self.prog if self.prog.startswith("mt ") else "mt train RECIPE"
        raise MTError(f"{_one_line(message)}; see `{program} --help`")

    def read(self, file: Path, content: dict[str, Any]) -> Any:
        """Check and complete the content of a YAML file."""
        _Parser.file = file
        try:
            return self.parse_object(content)
        finally:
            _Parser.file = None


class _Words(argparse.ArgumentParser):
    """The same of a command line that another parser reads on."""

    def error(self, message: str) -> NoReturn:
        raise MTError(f"{message}; see `{self.prog} --help`")


def _one_line(message: str) -> str:
    """Say what jsonargparse says over several lines in one, without Python's type names."""
    lines = [line.strip() for line in message.strip().split("\n") if line.strip()]
    text = " ".join(lines[:2]) if lines and lines[0].startswith("Parser key") else lines[0]
    if "Does not validate against any" in text:
        given = next((line for line in lines if line.startswith("Given value:")), "")
        kinds = next((line for line in lines if line.startswith("Subtypes:")), "")
        kinds = kinds.removeprefix("Subtypes: ")
        text = f"{lines[0]} expected one of {kinds}, got {given.removeprefix('Given value: ')}"
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("NoneType", "null")
    text = re.sub(r'Parser key "([^"]+)"', r"\1", text).replace("typing.Literal", "one of ")
    return text.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")


def parse_command(
    command: str,
    description: str,
    positionals: dict[str, str],
    kinds: Sequence[type],
    arguments: Sequence[str],
) -> tuple[list[Any], list[Any]]:
    """Parse a filter command: positional paths, then options from dataclasses.

    Options are spelt with dashes; underscores are accepted.

    Args:
        command: Such as `mt translate`.
        description: Of the command, for its help.
        positionals: Name and help of each positional argument; one that ends in `...` takes
            several, and then options of several values are given several times.
        kinds: Dataclasses whose fields become options, their attribute docstrings the help.
        arguments: The command line.

    Returns:
        The positional arguments, and an instance of each dataclass.

    Raises:
        MTError: A wrong option or type.
    """
    parser = _Parser(
        prog=command,
        description=description,
        formatter_class=argparse.HelpFormatter,
    )
    several_paths = False
    for name, text in positionals.items():
        several_paths = name.endswith("...")
        more: dict[str, Any] = {"nargs": "+"} if several_paths else {}
        parser.add_argument(name.removesuffix("..."), type=str, help=text, **more)
    for kind in kinds:
        hints = get_type_hints(kind)
        helps = {p.arg_name: p.description for p in parse_from_object(kind).params}
        for option in fields(kind):
            default = option.default
            if option.default_factory is not MISSING:
                default = option.default_factory()
            required = default is MISSING
            settings: dict[str, Any] = {"help": " ".join((helps[option.name] or "").split())}
            hint, several = hints[option.name], False
            if getattr(hint, "__origin__", None) is list:
                (hint,) = hint.__args__
                several = True
            if hint is bool:
                settings["action"] = "store_true"
            else:
                settings["type"] = str if "Path" in str(hint) else hint
            if several and several_paths:  # which would be taken for more of the option's values
                settings |= {"action": "append", "default": None}  # a default would be added to
                if choices := get_args(hint):
                    settings["type"] = partial(_choose, choices)
            elif several:
                settings["nargs"] = "+"
            if required:
                settings["required"] = True
            elif hint is not bool:
                settings.setdefault("default", default)
            if not required and default not in (None, []) and hint is not bool:
                shown = " ".join(default) if isinstance(default, list) else default
                settings["help"] += f" (default: {shown})"
            parser.add_argument(f"--{option.name.replace('_', '-')}", **settings)
    try:
        parsed = parser.parse_args([_dashes(argument) for argument in arguments])
    except MTError as error:  # jsonargparse names an option by its key
        names = "|".join(option.name for kind in kinds for option in fields(kind))
        pattern = rf"(?<![\w-])({names})(?=[:,;]| element)"
        raise MTError(
            re.sub(pattern, lambda match: "--" + match[1].replace("_", "-"), str(error))
        ) from error
    instances = []
    for kind in kinds:
        hints = get_type_hints(kind)
        values = {}
        for option in fields(kind):
            value = parsed[option.name]
            if value is None and option.default_factory is not MISSING:
                value = option.default_factory()
            if "Path" in str(hints[option.name]) and value is not None:
                value = [Path(v) for v in value] if isinstance(value, list) else Path(value)
            values[option.name] = value
        instances.append(kind(**values))
    return [parsed[name.removesuffix("...").replace("-", "_")] for name in positionals], instances


def _choose(choices: Sequence[str], given: str | list[str]) -> str | list[str]:
    """Check a word, or in the end all of an option's."""
    for word in [given] if isinstance(given, str) else given:
        if word not in choices:
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(choices)}")
    return given


def _dashes(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value


def _underscores(argument: str) -> str:
    """Spell `--init-from` as `--init_from`; options of a section keep their spelling."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or "." in name:
        return argument
    return "--" + name[2:].replace("-", "_") + equals + value


def _recipe_parser(kind: type[Recipe]) -> _Parser:
    from lightning import Trainer  # costs seconds, which only `mt train` may take

    parser = _Parser(
        prog="mt train RECIPE",
        description="Carry a recipe out: text, tokenizer, training, evaluation, report. "
        "With --print_config, print the recipe with all options filled in, and do nothing.",
    )
    parser.add_argument(
        "--output", type=str, default=None, help="run folder (default: runs/RECIPE_FILE_STEM)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in the run folder"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the run in the run folder"
    )
    parser.add_class_arguments(kind, None, skip={"trainer"})
    # Left out is what a run of this project decides itself.
    ours = {
        "logger",
        "callbacks",
        "plugins",
        "model_registry",
        "profiler",
        "enable_checkpointing",
        "enable_progress_bar",
        "enable_model_summary",
        "use_distributed_sampler",
        "num_sanity_val_steps",
        "limit_train_batches",
        "limit_val_batches",
        "limit_test_batches",
        "limit_predict_batches",
        "fast_dev_run",
        "overfit_batches",
        "min_epochs",
        "min_steps",
        "inference_mode",
        "reload_dataloaders_every_n_epochs",
        "default_root_dir",
        "barebones",
    }
    parser.add_class_arguments(Trainer, "trainer", skip=ours, instantiate=False)
    for action in parser._actions:
        if action.dest in _TRAINER_HELP:
            action.help = _TRAINER_HELP[action.dest]
    return parser


_TRAINER_HELP = {
    "trainer.max_epochs": "Passes over the training text; -1 sets no limit.",
    "trainer.max_steps": "Updates; -1 sets no limit.",
    "trainer.max_time": "Time of training, over all resumptions: DD:HH:MM:SS.",
    "trainer.val_check_interval": "Between validations: updates (500), or a share of an epoch "
    "(0.5).",
    "trainer.check_val_every_n_epoch": "Epochs between validations.",
    "trainer.log_every_n_steps": "Updates between rows of metrics.csv (default: 50).",
    "trainer.precision": "32-true, bf16-mixed or 64-true.",
    "trainer.gradient_clip_val": "Greatest norm of an update's gradient; 0 clips none.",
}
"""What these options mean here, where Lightning's own help says otherwise or nothing."""


_Kind = TypeVar("_Kind", bound=Recipe)


@dataclass(frozen=True)
class TrainOptions:
    """What `mt train` was asked to do."""

    recipe: Recipe
    output: Path
    resume: bool
    overwrite: bool
    print_config: bool


def parse_train(arguments: Sequence[str]) -> TrainOptions:
    """Read a recipe file and the options that override it.

    Paths in the recipe are relative to the project (see `project_root`), those on the command line
    to the current directory.

    Raises:
        MTError: The recipe is missing, or it or an option is wrong.
    """
    if not arguments or arguments[0].startswith("-"):
        if "--help" in arguments or "-h" in arguments:
            _recipe_parser(TranslationRecipe).parse_args(["--help"])
        raise MTError("name a recipe first: `mt train recipes/quickstart.yaml`")
    path = Path(arguments[0])
    kind, content = _read_recipe(path)
    parser = _recipe_parser(kind)
    # jsonargparse has an option of that name for other purposes.
    print_config = "--print_config" in arguments
    overrides = [_underscores(a) for a in arguments[1:] if a != "--print_config"]
    base = parser.read(path, content)
    parser.set_defaults(base.as_dict())
    parsed = parser.parse_args(overrides)
    recipe = _recipe(kind, parser, parsed)
    if unknown := [name for name in recipe.auto if name not in parsed]:
        raise MTError(f"auto: there is no option called {unknown[0]}; see `mt train --help`")
    # What was set stays, whether by its own name or within its section.
    given = {a.partition("=")[0].removeprefix("--") for a in overrides if a.startswith("--")}
    auto = [
        name
        for name in recipe.auto
        if name not in given and _value(parsed, name) == _value(base, name)
    ]
    recipe = map_paths(replace(recipe, auto=auto), _here)
    if isinstance(recipe, TranslationRecipe):
        teacher_recipe(recipe)  # a mistake is told at once
    return TrainOptions(
        recipe,
        Path(parsed.output or f"runs/{path.stem}"),
        parsed.resume,
        parsed.overwrite,
        print_config,
    )


def parse_sweep(arguments: Sequence[str]) -> SweepOptions:
    """Read the recipe's name, SPACE.yaml and the options that override the recipe.

    Raises:
        MTError: A file is missing, or it or an option is wrong.
    """
    helps = {p.arg_name: p.description or "" for p in parse_from_object(SweepSpec).params}
    described = [
        f"  {f.name}: {' '.join(helps[f.name].split())}"
        + ("" if f.default is MISSING else f" (default: {f.default})")
        for f in fields(SweepSpec)
    ]
    command = _Words(
        prog="mt sweep",
        usage="mt sweep RECIPE SPACE.yaml [--output DIR] [OPTIONS OF THE RECIPE]",
        description="Try values of a recipe's options, and find the best by validation.",
        epilog="\n".join(["SPACE.yaml:", *described]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("recipe", metavar="RECIPE", type=Path, help="to train again and again")
    command.add_argument("space", metavar="SPACE.yaml", type=Path, help="values to try, see below")
    told = "of the trials; a sweep that is there goes on (default: runs/sweep/RECIPE-SPACE)"
    command.add_argument("--output", metavar="DIR", type=Path, help=told)
    given, overrides = command.parse_known_args(arguments)
    recipe, space = given.recipe, given.space
    output = given.output or Path("runs/sweep") / f"{recipe.stem}-{space.stem}"
    parser = _Parser(prog="mt sweep")
    parser.add_class_arguments(SweepSpec, None)
    content = _read_yaml(space)
    if not isinstance(content.get("space"), dict):
        raise MTError(f"{space}: `space` must be a mapping of options to their values")
    _check_yaml(space, SweepSpec, content)
    try:
        read = parser.instantiate(parser.read(space, content))
        spec = SweepSpec(**{f.name: read[f.name] for f in fields(SweepSpec)})
    except MTError as error:
        place = "" if str(error).startswith(str(space)) else f"{space}: "
        raise MTError(f"{place}{error}") from error
    return SweepOptions(recipe, spec, overrides, output)


def teacher_recipe(recipe: TranslationRecipe) -> TranslationRecipe:
    """Return the recipe of a recipe's teachers: its own, with the changes that it names for them.

    Raises:
        MTError: A change is wrong, or is to what all must have in common.
    """
    changes = copy.deepcopy(recipe.distillation.teacher)
    place = Path("distillation.teacher")  # stands in messages where a file would
    free = "model", "batches", "training", "search", "trainer"
    for section in changes:
        if section not in free:
            raise MTError(f"{place}: {section} cannot differ; only {', '.join(free)} can")
    _check_yaml(place, TranslationRecipe, changes)
    recipe = replace(
        recipe,
        distillation=Distillation(),
        back_translation=BackTranslation(),
        shortlist=ShortlistOptions(),
    )
    if not changes:
        return recipe
    content = json.loads(json.dumps(asdict(recipe)))
    for section, options in changes.items():
        content[section] |= options
    parser = _recipe_parser(TranslationRecipe)
    parsed = parser.read(place, content)
    try:
        return _recipe(TranslationRecipe, parser, parsed)
    except MTError as error:
        raise MTError(f"{place}: {error}") from error


def _recipe(kind: type[_Kind], parser: _Parser, parsed: Any) -> _Kind:
    try:
        made = parser.instantiate(parsed)
    except ValueError as error:  # of the network's options, which know no other error
        raise MTError(str(error)) from error
    trainer = {name: value for name, value in parsed.trainer.as_dict().items() if value is not None}
    return kind(
        **{f.name: made[f.name] for f in fields(kind) if f.name != "trainer"}, trainer=trainer
    )


def _value(options: Any, name: str) -> Any:
    for part in name.split("."):
        options = options[part]
    return options


def _here(path: str) -> str:
    """Complete a path that was given on the command line, so that the recipe stands alone."""
    return str(Path.cwd() / Path(path).expanduser())


def project_root(path: Path) -> Path:
    """The folder that a recipe's paths start from: the one that holds `recipes/`, else its own."""
    folder = path.resolve().parent
    return next((p.parent for p in (folder, *folder.parents) if p.name == "recipes"), folder)


def _read_recipe(path: Path) -> tuple[type[Recipe], dict[str, Any]]:
    content = _read_yaml(path)
    task = content.get("task", "translation")
    if task not in RECIPES:
        raise MTError(f"{path}: task: {task!r} is none of {', '.join(RECIPES)}")
    root = project_root(path)
    tokenizer = content.get("tokenizer")
    if isinstance(tokenizer, str):
        content["tokenizer"] = _spec_fields(root / tokenizer)
    content = map_paths(content, lambda name: str(root / Path(name).expanduser()))
    _check_yaml(path, RECIPES[task], content)
    for name in ("output", "resume", "overwrite"):
        if name in content:
            raise MTError(f"{path}: {name} is an option of `mt train`, not of a recipe: --{name}")
    return RECIPES[task], content


def _check_yaml(path: Path, kind: Any, content: dict[str, Any], prefix: str = "") -> None:
    """Tell where YAML reads words or gaps otherwise than they were meant; drop empty sections."""
    for field_name, hint in get_type_hints(kind).items():
        if field_name not in content:
            continue
        name, value, kinds = prefix + field_name, content[field_name], get_args(hint) or (hint,)
        if is_dataclass(hint) or get_origin(hint) is dict:
            if value is None:
                del content[field_name]
            elif not isinstance(value, dict):
                raise MTError(f"{path}: {name}: {value!r} is no mapping of options")
            elif is_dataclass(hint):
                _check_yaml(path, hint, value, f"{name}.")
        elif value is None and type(None) not in kinds:
            raise MTError(f"{path}: {name} has no value; give one, or leave the line out")
        elif value is False and "off" in kinds:
            content[field_name] = "off"
        elif isinstance(value, bool) and str in kinds:
            raise MTError(
                f"{path}: {name}: YAML takes no, yes, on and off for truth values; quote it"
            )
        elif isinstance(value, list) and is_dataclass(kinds[0]):
            for number, item in enumerate(value):
                if isinstance(item, dict):
                    _check_yaml(path, kinds[0], item, f"{name}[{number}].")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MTError(f"{path}: cannot read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MTError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise MTError(f"{path}: not a YAML mapping of sections such as `corpus:`")
    return content


def _spec_fields(path: Path) -> dict[str, Any]:
    content = _read_yaml(path)
    content.pop("input", None)  # of `mt tokenizer` alone: a run trains on its own corpus
    return content


def read_spec(path: Path) -> tuple[TokenizerSpec, list[Path]]:
    """Read a tokenizer's YAML and the paths of its `input` list, relative to the project.

    Raises:
        MTError: The file is missing or wrong.
    """
    content = _read_yaml(path)
    inputs = content.pop("input", [])
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise MTError(f"{path}: `input` must be a list of files")
    folder = path.resolve().parent
    root = folder.parent if folder.name == "tokenizers" else folder
    parser = _Parser(prog="mt tokenizer")
    parser.add_class_arguments(TokenizerSpec, None)
    _check_yaml(path, TokenizerSpec, content)
    spec = parser.instantiate(parser.read(path, content))
    return TokenizerSpec(**{f.name: spec[f.name] for f in fields(TokenizerSpec)}), [
        root / item for item in inputs
    ]
