"""The arrows between rooms that must never exist (docs/architecture.md), found in the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "lightning",
    "datasets",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "sacrebleu",
    "pandas",
    "tensorboard",
    "jsonargparse",
    "statsmodels",
    "matplotlib",
)


class Import(NamedTuple):
    """One import statement."""

    module: str  # that imports
    name: str  # what it imports: a module, or something in one
    lazy: bool  # inside a function
    typing: bool  # for type checkers alone


def imports_of(path: Path) -> list[Import]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool, typing: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(module, alias.name, lazy, typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where an arrow points"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.extend(Import(module, name, lazy, typing) for name in names)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy, typing or guarded)

    visit(ast.parse(path.read_text()), False, False)
    return found


FILES = sorted((ROOT / "mt").rglob("*.py"))
IMPORTS = [found for path in FILES for found in imports_of(path)]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
}


def ours(name: str) -> str | None:
    """The module of ours that an imported name is or lies in."""
    parts = name.split(".")
    while parts:
        if ".".join(parts) in MODULES:
            return ".".join(parts)
        parts.pop()
    return None


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def test_the_imports_are_found_at_all() -> None:
    def found(module: str, name: str) -> Import:
        (one,) = (i for i in IMPORTS if (i.module, i.name) == (module, name))
        return one

    assert not found("mt.translator", "mt.bundle.load_bundle").lazy
    assert found("mt.options", "lightning.Trainer").lazy
    assert {"mt.errors.MTError"} <= {i.name for i in IMPORTS if i.module == "mt" and i.typing}
    assert {"mt.nn.decoder", "mt.search.beam", "mt.training.fit", "mt.corpus"} <= MODULES
    assert ours("mt.nn.decoder.Decoder") == "mt.nn.decoder"
    assert ours("torch.nn") is None


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("mt.nn", ["mt.nn"]),
        ("mt.search", ["mt.search", "mt.errors"]),
        ("mt.errors", []),
        ("mt.files", ["mt.errors"]),
        ("mt.lines", ["mt.errors"]),
        ("mt.recipe", ["mt.errors", "mt.nn.architecture", "mt.recipe", "mt.search.options"]),
        ("mt.placeholders", []),
        ("mt.scripts", []),
        ("mt.tokenizer", ["mt.errors", "mt.files", "mt.placeholders", "mt.recipe"]),
        ("mt.series", ["mt.errors", "mt.lines"]),
        ("mt.batches", ["mt.tokenizer"]),
        ("mt.evaluation.scores", ["mt.errors", "mt.placeholders"]),
        (
            "mt.bundle",
            [
                "mt.bundle",
                "mt.errors",
                "mt.nn",
                "mt.search.options",
                "mt.search.shortlist",
                "mt.series",
                "mt.tokenizer",
            ],
        ),
        (
            "mt.translator",
            [
                "mt.batches",
                "mt.bundle",
                "mt.errors",
                "mt.nn.language_model",
                "mt.onnx",
                "mt.placeholders",
                "mt.scripts",
                "mt.search",
                "mt.tokenizer",
            ],
        ),
        ("mt.onnx", ["mt.errors", "mt.nn"]),
        (
            "mt.language_model",
            [
                "mt.batches",
                "mt.bundle",
                "mt.nn",
                "mt.placeholders",
                "mt.search",
                "mt.tokenizer",
                "mt.translator.resolve_device",
            ],
        ),
        (
            "mt.forecaster",
            ["mt.bundle", "mt.errors", "mt.nn", "mt.series", "mt.translator.resolve_device"],
        ),
        (
            "mt.classifier",
            [
                "mt.batches",
                "mt.bundle",
                "mt.language_model.encode",
                "mt.tokenizer",
                "mt.translator.resolve_device",
            ],
        ),
    ],
)
def test_a_room_imports_only_what_lies_before_it(room: str, allowed: list[str]) -> None:
    wrong = [
        f"{i.module} imports {i.name}"
        for i in IMPORTS
        if inside(i.module, room) and ours(i.name) and not inside(i.name, *allowed)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("lightning", ["mt.training", "mt.options"]),
        ("datasets", ["mt.corpus"]),
        ("pyarrow", ["mt.corpus"]),
        ("safetensors", ["mt.bundle"]),
        ("sentencepiece", ["mt.tokenizer"]),
        ("sacrebleu", ["mt.evaluation"]),
        ("onnx", ["mt.onnx"]),
        ("onnxruntime", ["mt.onnx"]),
        ("statsmodels", ["mt.corpus.series", "mt.evaluation.forecasts"]),
        ("matplotlib", ["mt.evaluation.forecast_plot"]),
        ("jsonargparse", ["mt.options", "mt.cli"]),
        ("optuna", ["mt.training.sweep"]),
        ("mt.cli", []),
        ("pickle", []),
    ],
)
def test_only_one_room_knows_a_package(package: str, rooms: list[str]) -> None:
    wrong = [
        f"{i.module} imports {i.name}"
        for i in IMPORTS
        if inside(i.name, package) and not inside(i.module, *rooms)
    ]
    assert wrong == []


def test_what_an_extra_brings_is_imported_only_when_it_is_used() -> None:
    extras = "statsmodels", "matplotlib"
    found = [i for i in IMPORTS if inside(i.name, *extras)]
    assert found
    assert all(i.lazy for i in found)


def test_the_options_import_lightning_only_when_flags_need_it() -> None:
    wrong = [i for i in IMPORTS if i.module == "mt.options" and inside(i.name, "lightning")]
    assert all(i.lazy for i in wrong)


def test_no_room_but_the_command_line_and_training_imports_training() -> None:
    importers = {i.module for i in IMPORTS if inside(i.name, "mt.training")}
    assert {m for m in importers if not inside(m, "mt.training")} <= {"mt.cli"}


def test_modules_form_no_cycle() -> None:
    arrows: dict[str, set[str]] = {module: set() for module in MODULES}
    for i in IMPORTS:
        target = ours(i.name)
        if target and not (i.lazy or i.typing) and target != i.module:
            arrows[i.module].add(target)
    left = dict(arrows)
    while left:
        leaves = [m for m, targets in left.items() if not targets & left.keys()]
        assert leaves, f"these import each other: {sorted(left)}"
        for module in leaves:
            del left[module]


def loaded(code: str) -> set[str]:
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_translating_pays_for_no_training_stack() -> None:
    modules = loaded(
        "import mt.batches, mt.bundle, mt.nn.seq2seq, mt.search, mt.tokenizer, mt.translator\n"
        "import mt.language_model, mt.forecaster"
    )
    assert "torch" in modules
    assert modules.isdisjoint(HEAVY)
    assert not [m for m in modules if inside(m, "mt.training", "mt.corpus", "mt.evaluation")]


def test_the_package_itself_imports_nothing_heavy() -> None:
    modules = loaded("import mt; mt.__version__; mt.MTError")
    assert modules.isdisjoint({*HEAVY, "torch", "numpy"})


def test_no_python_file_among_the_tokenizers() -> None:
    """It would shadow the package of that name for everything that runs from here."""
    assert (ROOT / "tokenizers").is_dir()
    assert list((ROOT / "tokenizers").rglob("*.py")) == []
