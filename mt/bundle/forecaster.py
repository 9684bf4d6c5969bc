"""A forecaster on disk: a folder of data files that cannot run code.

Beside what every bundle has (see `mt.bundle.files`), `config.json` holds the names of the columns
and of the times' column, the scaling, and by how much predicted scales are widened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from mt.bundle.files import (
    CONFIG,
    read_card,
    read_config,
    read_network,
    write_files,
)
from mt.errors import MTError
from mt.nn.architecture import ForecasterArchitecture
from mt.nn.forecaster import ForecasterNetwork
from mt.series import Scaling

_NEEDED = {"columns": list, "time": str, "scaling": dict, "spread": list}


class ForecasterBundle(NamedTuple):
    """A trained forecaster's parts."""

    model: ForecasterNetwork
    """The network, in evaluation mode on the CPU."""
    columns: list[str]
    """Names of what it forecasts."""
    time: str | None
    """Name of the column that says when a step was, if there is one."""
    scaling: Scaling
    """From values to what the network sees, and back."""
    spread: list[float]
    """What predicted scales are multiplied by, by column, where intervals are drawn: the scale of
    the errors of the next step on the validation part, in predicted scales. A network that predicts
    none has scales of one."""
    card: str = ""
    """The model card, Markdown."""


def save_forecaster(bundle: ForecasterBundle, folder: Path) -> None:
    """Write a bundle; an older one in its place is replaced as a whole.

    Raises:
        MTError: The folder cannot be written; an older bundle stays as it was.
    """
    config = {
        "task": "forecasting",
        "columns": bundle.columns,
        "time": bundle.time or "",
        "scaling": asdict(bundle.scaling),
        "spread": bundle.spread,
        "architecture": asdict(bundle.model.architecture),
    }
    write_files(folder, config, bundle.model, bundle.card, {})


def load_forecaster(folder: Path) -> ForecasterBundle:
    """Read a bundle and check that it is whole. No code in it is ever run.

    Raises:
        MTError: A file is missing, damaged, altered or of another version, or the bundle is of
            another task; the message names it.
    """
    config = read_config(folder, "forecasting", _NEEDED)
    columns = config["columns"]
    if not columns or not all(isinstance(name, str) and name for name in columns):
        raise MTError(f"{folder / CONFIG}: `columns` are no names; copy the bundle again")
    if len(set(columns)) < len(columns):
        raise MTError(f"{folder / CONFIG}: two `columns` have one name; copy the bundle again")
    scaling = _read_scaling(config["scaling"], len(columns), folder)
    _check_numbers("spread", config["spread"], len(columns), 0.0, folder)
    model = read_network(
        ForecasterArchitecture,
        lambda its: ForecasterNetwork(its, len(columns), initialize=False),
        config,
        folder,
    )
    return ForecasterBundle(
        model, columns, config["time"] or None, scaling, config["spread"], read_card(folder)
    )


def _read_scaling(content: dict[str, Any], columns: int, folder: Path) -> Scaling:
    numbers = {name: content.get(name) for name in ("mean", "deviation")}
    for name, least in (("mean", -math.inf), ("deviation", math.ulp(0))):
        _check_numbers(f"scaling.{name}", numbers[name], columns, least, folder)
    difference = content.get("difference")
    wrong = set(content) != {"transform", "difference", "mean", "deviation"}
    wrong |= content.get("transform") not in ("none", "log", "sqrt")
    wrong |= type(difference) is not int or difference < 0
    if wrong:
        raise MTError(f"{folder / CONFIG}: `scaling` is damaged; copy the bundle again")
    return Scaling(**content)


def _check_numbers(
    name: str, values: Sequence[float] | None, columns: int, least: float, folder: Path
) -> None:
    """Refuse what is not a finite number, at least so large, for each column."""
    fits = isinstance(values, list) and len(values) == columns
    if not fits or not all(
        type(value) in (int, float) and math.isfinite(value) and value >= least
        for value in values or ()
    ):
        raise MTError(
            f"{folder / CONFIG}: `{name}` is no list of numbers, one a column; copy the bundle "
            "again"
        )
