"""Files become pairs: Moses-style line pairs, TSV, CSV, JSONL and Parquet, plain or compressed.

Every reader streams, keeps memory constant and yields the text as it stands: no cleaning, no
Unicode normalisation. A line ends at LF, or CRLF; nothing else ever splits one. A line break inside
a table's cell becomes a space, so that a sentence is one line everywhere.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mt.errors import MTError
from mt.lines import COMPRESSIONS, decompressed, ending, line_counts_differ, read_lines

Pair = tuple[str, str]

TABLES = ("tsv", "csv", "jsonl", "parquet")

_LONE_CR = "\ufdd0"  # a noncharacter: stands in for a lone CR, at which `csv` would end a row
_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_BREAKS = re.compile(r"\s*\n\s*")


class Columns(NamedTuple):
    """Which columns of a table hold the two sides."""

    source_language: str
    target_language: str
    source: str | None = None
    target: str | None = None
    plain: Pair = ("source", "target")
    """Names of columns that are looked for last."""
    options: Pair = ("source_column", "target_column")
    """The options that name the columns."""
    label: bool = False
    """The target is a label, for which a whole number may stand, too."""

    @property
    def one(self) -> bool:
        """Both sides are the same column: text in one language."""
        return self.source_language == self.target_language


def read_line_pair(source: Path, target: Path) -> Iterator[Pair]:
    """Yield the pairs of two files whose lines N translate each other.

    Raises `MTError` for invalid UTF-8, a damaged archive, and line counts that differ.
    """
    left, right = read_lines(source), read_lines(target)
    count = 0
    for text in left:
        translation = next(right, None)
        if translation is None:
            lines = count + 1 + sum(1 for _ in left)
            raise line_counts_differ(source, lines, target, count)
        count += 1
        yield text, translation
    rest = sum(1 for _ in right)
    if rest:
        raise line_counts_differ(source, count, target, count + rest)


def read_table(path: Path, columns: Columns) -> Iterator[Pair]:
    """Yield the pairs of a table file, each side on one line; see `read_cells`."""
    for source, target in read_cells(path, columns):
        yield one_line(source), one_line(target)


def read_cells(path: Path, columns: Columns) -> Iterator[Pair]:
    """Yield the pairs of a table file, whose name tells its form (see `TABLES`), as they stand.

    Raises `MTError` for a missing column, invalid UTF-8, a malformed row or a damaged archive.
    """
    readers: dict[str, Callable[[Path, Columns], Iterator[Pair]]] = {
        "tsv": _read_tsv,
        "csv": _read_csv,
        "jsonl": _read_jsonl,
        "parquet": _read_parquet,
    }
    yield from readers[table_form(path) or ""](path, columns)


def table_form(path: Path) -> str | None:
    """Name the form of a table file, one of `TABLES`; None for other files."""
    form = ending(path)
    return form if form in TABLES else None


def one_line(text: str) -> str:
    """Replace line breaks (LF, CRLF) and the blanks around them by one space."""
    return _LINE_BREAKS.sub(" ", text) if "\n" in text else text


def _read_tsv(path: Path, columns: Columns) -> Iterator[Pair]:
    rows = ((number, line.split("\t")) for number, line in enumerate(read_lines(path), 1))
    return _rows(path, columns, rows)


def _read_csv(path: Path, columns: Columns) -> Iterator[Pair]:
    lines = (line.replace("\r", _LONE_CR) + "\n" for line in read_lines(path))
    reader = csv.reader(lines, strict=True)

    def rows() -> Iterator[tuple[int, list[str]]]:
        try:
            for row in reader:
                yield reader.line_num, [cell.replace(_LONE_CR, "\r") for cell in row]
        except csv.Error as error:
            raise MTError(
                f"{path}: line {reader.line_num}: {error}; is a quote left open?"
            ) from None

    return _rows(path, columns, rows())


def _rows(path: Path, columns: Columns, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Pair]:
    """Pick two columns by the header, or the first two where no header names a side."""
    start, first = next((row for row in rows if any(row[1])), (0, []))
    if not first:
        return
    found = _find(columns, first)
    named = columns.source is not None or columns.target is not None
    if named or any(name is not None for name in found):
        source, target = (first.index(name) for name in _required(path, columns, first))
    else:
        source, target = 0, 0 if columns.one else 1
        rows = _prepend((start, first), rows)
    width = max(source, target) + 1
    for number, row in rows:
        if len(row) < width:
            if not any(row):  # a blank line, as at the end of many files
                continue
            raise MTError(f"{path}: line {number} has {len(row)} column(s), not {width} or more")
        yield row[source], row[target]


def _prepend(row: tuple[int, list[str]], rows: Iterator[Any]) -> Iterator[Any]:
    yield row
    yield from rows


def _read_jsonl(path: Path, columns: Columns) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise MTError(f"{path}: line {number} is not JSON ({error})") from None
        if "\\ud" in line.lower() and _SURROGATE.search(json.dumps(record, ensure_ascii=False)):
            raise MTError(
                f"{path}: line {number} spells half of a surrogate pair, which is no text"
            )
        if not isinstance(record, dict):
            raise MTError(f"{path}: line {number} is not a JSON object")
        yield pick_pair(f"{path}: line {number}", columns, record)


def _read_parquet(path: Path, columns: Columns) -> Iterator[Pair]:
    if path.suffix not in COMPRESSIONS:
        yield from _read_plain_parquet(path, path, columns)
        return
    # Parquet is read from its end: an archive of it has to be unpacked first.
    with tempfile.TemporaryDirectory(prefix="mt-") as folder:
        plain = Path(folder, "table.parquet")
        with plain.open("wb") as stream:
            for chunk in decompressed(path):
                stream.write(chunk)
        yield from _read_plain_parquet(path, plain, columns)


def _read_plain_parquet(name: Path, path: Path, columns: Columns) -> Iterator[Pair]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            wanted = column_names(str(name), columns, table.schema_arrow.names)
            for batch in table.iter_batches(batch_size=10_000, columns=wanted):
                for record in batch.to_pylist():
                    yield pick_pair(str(name), columns, record)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MTError(f"{name} is damaged or cut short ({reason}); fetch it again") from None


def column_names(place: str, columns: Columns, names: Sequence[str]) -> list[str]:
    """Name the columns to read: the two sides', or `translation`, which holds both."""
    if _translation(columns, names):
        return ["translation"]
    return list(dict.fromkeys(_required(place, columns, names)))


def pick_pair(place: str, columns: Columns, record: dict[str, Any]) -> Pair:
    """Take the two sides out of a record; a null is an empty side."""
    if _translation(columns, record) and isinstance(record["translation"], dict):
        place, record = f"{place}: translation", record["translation"]
    source, target = (record[name] for name in _required(place, columns, record))
    if columns.label and isinstance(target, int):
        target = str(target)
    for text in (source, target):
        if text is not None and not isinstance(text, str):
            raise MTError(f"{place}: expected text, found {type(text).__name__}")
    return source or "", target or ""


def _translation(columns: Columns, names: Iterable[str]) -> bool:
    return "translation" in names and None in _find(columns, names)


def _find(columns: Columns, names: Iterable[str]) -> tuple[str | None, str | None]:
    """Find the columns of the two sides: as named, by language code, or `source`, `target`."""

    def first(*candidates: str | None) -> str | None:
        return next((name for name in candidates if name is not None and name in names), None)

    return (
        first(columns.source)
        if columns.source
        else first(columns.source_language, columns.plain[0]),
        first(columns.target)
        if columns.target
        else first(columns.target_language, columns.plain[1]),
    )


def _required(place: str | Path, columns: Columns, names: Iterable[str]) -> Pair:
    source, target = _find(columns, names)
    if source is not None and target is not None:
        return source, target
    if source is None:
        missing, option = columns.source or columns.source_language, columns.options[0]
    else:
        missing, option = columns.target or columns.target_language, columns.options[1]
    there = ", ".join(repr(name) for name in names)
    raise MTError(f"{place} has no column {missing!r} but {there}; name it with {option}")
