"""What the sources of every task have in common: splits that are opened, and only later read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mt.corpus.formats import Columns, Pair, column_names, pick_pair
from mt.corpus.store import BATCH, disk_full, first_line, hash_files, quiet
from mt.errors import MTError
from mt.lines import COMPRESSIONS
from mt.recipe import HubSource

if TYPE_CHECKING:
    import datasets

T = TypeVar("T")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Split(Generic[T]):
    """The text of one split of one source, not read yet."""

    place: str
    """What errors call it: its files, or its name on the hub."""
    read: Callable[[], Iterator[T]]
    """Read it; raises `MTError` for bad data."""
    fingerprint: str = ""
    """Changes when the content does; empty where reading is bound to fail."""


@dataclass(frozen=True)
class Origin(Generic[T]):
    """One source of a recipe, opened: what there is, before any of it is read."""

    description: str
    """A line for the model card, without languages and counts."""
    train: Split[T] | None = None
    valid: Split[T] | None = None
    tests: dict[str, Split[T]] = field(default_factory=dict)
    weight: float = 1.0


def digest(content: list[Any], origins: Sequence[Origin[Any]]) -> str:
    """Hash the text of the origins and what else decides what becomes of it."""
    prints = [
        [split and split.fingerprint for split in (origin.train, origin.valid)]
        + [(name, split.fingerprint) for name, split in sorted(origin.tests.items())]
        for origin in origins
    ]
    text = json.dumps([*content, prints], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def training_places(origins: Sequence[Origin[Any]]) -> str:
    """Say where the training text is looked for."""
    return ", ".join(origin.train.place for origin in origins if origin.train) or "any source"


def read_tests(
    origins: Sequence[Origin[T]], read: Callable[[Split[T]], list[Read]]
) -> dict[str, list[Read]]:
    """Read the test sets by name; two sources' sets of one name stay two sets."""
    tests: dict[str, list[Read]] = {}
    for origin in origins:
        for name, split in origin.tests.items():
            number, free = 1, name
            while free in tests:
                number, free = number + 1, f"{name}-{number + 1}"
            tests[free] = read(split)
    return tests


def fingerprint(*paths: Path) -> str:
    """Hash the content of files; empty where they cannot be read, as reading them will tell."""
    try:
        return hash_files(paths)
    except OSError:
        return ""


def kind_of(source: object, option: str, kinds: Sequence[str]) -> str:
    """Tell which of its kinds a source sets; raises `MTError` unless it is exactly one."""
    found = [kind for kind in kinds if getattr(source, kind) is not None]
    if len(found) != 1:
        listed = " and ".join([", ".join(kinds[:-1]), kinds[-1]])
        raise MTError(
            f"{option} sets {' and '.join(found) or 'nothing'}; set exactly one of {listed}"
        )
    return found[0]


def open_files(
    files: str | None, kinds: Iterable[str], open_file: Callable[[Path], Split[T]], remedy: str = ""
) -> Origin[T]:
    """Open a folder of splits, each one file, or a file of training text.

    Args:
        files: The path that was given.
        kinds: Endings that a file of a folder may have, such as `en` and `tsv`.
        open_file: Opens a file.
        remedy: What to do where the folder holds no training text.

    Raises:
        MTError: It does not exist, holds no training text, or two files for one split.
    """
    path = Path(files or "").expanduser()
    description = f"{path.name or path} (local files)"
    if path.is_file():
        return Origin(description, open_file(path))
    if not path.is_dir():
        raise MTError(f"corpus.files: {path} does not exist")
    kinds = list(kinds)
    pattern = re.compile(
        rf"(train|valid|dev|test[\w-]*)\.(?:{'|'.join(map(re.escape, kinds))})"
        rf"(?:{'|'.join(map(re.escape, COMPRESSIONS))})?"
    )
    found: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if (match := pattern.fullmatch(file.name)) and file.is_file():
            name = "valid" if match[1] == "dev" else match[1]
            if name in found:
                raise MTError(
                    f"{path} is ambiguous: {found[name].name}, {file.name}; keep one of them"
                )
            found[name] = file
    if "train" not in found:
        wanted = ", ".join(f"train.{kind}" for kind in kinds)
        raise MTError(f"corpus.files: {path} holds none of {wanted}, but {there(path)}{remedy}")
    splits = {name: open_file(file) for name, file in found.items()}
    return Origin(description, splits.pop("train"), splits.pop("valid", None), splits)


def there(folder: Path) -> str:
    """Name the first files of a folder."""
    return ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "no file"


def open_hub(
    source: HubSource,
    option: str,
    columns: Columns,
    read: Callable[[Iterator[Pair], datasets.Dataset], Iterator[T]],
) -> Origin[T]:
    """Open a dataset of the hub.

    Args:
        source: Names it.
        option: What errors call the source.
        columns: The columns to read.
        read: Makes what the task reads of the cells of a split, as they stand.

    Raises:
        MTError: It is not there, cannot be reached, or lacks a split.
    """
    order = ["train", "valid", *sorted(set(source.splits) - {"train", "valid"})]
    ours = [name for name in order if name in source.splits]
    for name in ours:
        if not re.fullmatch(r"train|valid|test[\w-]*", name):
            raise MTError(f"{option}.splits: {name!r} is no split; name train, valid or test...")
    found = _download(source, [source.splits[name] for name in ours])
    splits = {
        name: _hub_split(f"{source.hub}, split {source.splits[name]}", columns, data, read)
        for name, data in zip(ours, found, strict=True)
    }
    config = f", {source.config}" if source.config else ""
    return Origin(
        f"{source.hub} (Hugging Face Hub{config})",
        splits.pop("train", None),
        splits.pop("valid", None),
        splits,
    )


def _hub_split(
    place: str,
    columns: Columns,
    data: datasets.Dataset,
    read: Callable[[Iterator[Pair], datasets.Dataset], Iterator[T]],
) -> Split[T]:
    def cells() -> Iterator[Pair]:
        names = column_names(place, columns, data.column_names)
        for batch in data.select_columns(names).iter(batch_size=BATCH):
            for values in zip(*(batch[name] for name in names), strict=True):
                yield pick_pair(place, columns, dict(zip(names, values, strict=True)))

    files = [Path(file["filename"]) for file in data.cache_files]
    return Split(place, lambda: read(cells(), data), fingerprint(*files))


def _download(source: HubSource, splits: list[str]) -> list[datasets.Dataset]:
    """Fetch splits of a hub dataset, or take them from the hub's cache."""
    import datasets
    import datasets.exceptions

    with quiet():
        try:
            found: list[datasets.Dataset] = datasets.load_dataset(
                source.hub, source.config, split=splits, revision=source.revision
            )
        except datasets.exceptions.DatasetNotFoundError as error:
            raise MTError(
                f"corpus: {source.hub} is not on the hub, or not open to you ({first_line(error)})"
            ) from None
        except ValueError as error:  # an unknown configuration or split; the text lists those there
            raise MTError(f"corpus: {source.hub}: {' '.join(str(error).split())}") from None
        except Exception as error:
            if full := disk_full(error):
                raise full from None
            # The hub's client and its transport raise errors of many families.
            raise MTError(
                f"corpus: cannot fetch {source.hub} from the hub ({first_line(error)}); try again, "
                "or work offline with a folder of text: --corpus.files DIR"
            ) from None
    return found
