from __future__ import annotations

import contextlib
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.corpus.formats import Columns, read_line_pair, read_table
from mt.errors import MTError
from mt.lines import compressed, decompressed, read_lines

EN_DE = Columns("en", "de")
PAIRS = [
    ("a house", "ein Haus"),
    ("caf\u00e9", "Caf\u00e9"),
    ("", "leer"),
    ('say "a, b"', "x\u2028y"),
]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def parquet(columns: dict[str, list[object]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    return sink.getvalue().to_pybytes()


def table(form: str) -> bytes:
    if form == "parquet":
        return parquet({"de": [de for _, de in PAIRS], "en": [en for en, _ in PAIRS], "n": [1] * 4})
    if form == "jsonl":
        return "\n".join(json.dumps({"n": 1, "de": de, "en": en}) for en, de in PAIRS).encode()
    if form == "csv":
        rows = [("n", "de", "en"), *((1, de, en) for en, de in PAIRS)]
        quoted = ('","'.join(str(cell).replace('"', '""') for cell in row) for row in rows)
        return "".join(f'"{row}"\r\n' for row in quoted).encode()
    return "".join(
        f"{de}\t{en}\n" for de, en in [("de", "en"), *((d, e) for e, d in PAIRS)]
    ).encode()


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_every_table_form_gives_the_same_pairs(tmp_path: Path, form: str, packed: str) -> None:
    path = write(tmp_path / f"text.{form}{packed}", COMPRESS[packed](table(form)))
    assert list(read_table(path, EN_DE)) == PAIRS


@pytest.mark.parametrize("packed", COMPRESS)
def test_line_pairs(tmp_path: Path, packed: str) -> None:
    sides = ("\n".join(side).encode() for side in zip(*PAIRS, strict=True))
    en, de = (
        write(tmp_path / f"text.{language}{packed}", COMPRESS[packed](data))
        for language, data in zip(("en", "de"), sides, strict=True)
    )
    assert list(read_line_pair(en, de)) == PAIRS


NO_LF = st.characters(exclude_characters="\n\ufeff", exclude_categories=["Cs"])


@settings(deadline=None)
@given(
    st.lists(st.text(NO_LF).map(lambda line: line.rstrip("\r"))),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_nothing_but_lf_ends_a_line(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, ended: bool
) -> None:
    text = "".join(line + end for line in lines)
    if not ended and lines and lines[-1]:
        text = text.removesuffix(end)
    path = write(tmp_path_factory.mktemp("lines") / "text.en", text)
    assert list(read_lines(path)) == lines


def test_long_files_are_read_in_pieces(tmp_path: Path) -> None:
    lines = [f"{n} " + "\u00e4\u8a9e" * (n % 90) for n in range(40_000)] + ["x" * 3_000_000, "end"]
    path = write(tmp_path / "text.en.zst", COMPRESS[".zst"]("\n".join(lines).encode()))
    assert list(read_lines(path)) == lines


def test_bom_is_left_out_at_the_start_only(tmp_path: Path) -> None:
    path = write(tmp_path / "text.en", "\ufeffa\n\ufeffb\n")
    assert list(read_lines(path)) == ["a", "\ufeffb"]


@pytest.mark.parametrize("before", [0, 2, 100_000])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_invalid_utf8_names_file_and_line(tmp_path: Path, before: int, packed: str) -> None:
    data = b"fine \xc3\xa4, fine \xc3\xa4\n" * before + b"bad \xff\nfine\n"
    path = write(tmp_path / f"text.en{packed}", COMPRESS[packed](data))
    with pytest.raises(MTError, match=rf"text\.en.*line {before + 1} is not valid UTF-8"):
        list(read_lines(path))


@pytest.mark.parametrize(("left", "right"), [("a\nb\nc\n", "a\n"), ("a\n", "a\nb\nc"), ("", "a\n")])
def test_uneven_files_name_both_and_their_counts(tmp_path: Path, left: str, right: str) -> None:
    en, de = write(tmp_path / "x.en", left), write(tmp_path / "x.de", right)
    counts = [len(text.split()) for text in (left, right)]
    with pytest.raises(MTError, match=rf"x\.en has {counts[0]} lines but .*x\.de has {counts[1]}"):
        list(read_line_pair(en, de))


@pytest.mark.parametrize("packed", [".gz", ".xz", ".zst"])
def test_truncated_and_damaged_archives(tmp_path: Path, packed: str) -> None:
    data = COMPRESS[packed]("\n".join(map(str, range(20_000))).encode())
    with pytest.raises(MTError, match=rf"cut{packed} is cut short; fetch it again"):
        list(read_lines(write(tmp_path / f"cut{packed}", data[: len(data) // 2])))
    with pytest.raises(MTError, match=rf"bad{packed} is damaged .*; fetch it again"):
        list(read_lines(write(tmp_path / f"bad{packed}", b"no archive at all")))


def test_archives_of_several_members_are_read_whole(tmp_path: Path) -> None:
    for packed in (".gz", ".xz", ".zst"):
        data = COMPRESS[packed](b"a\n") + COMPRESS[packed](b"b\n")
        assert list(read_lines(write(tmp_path / f"text{packed}", data))) == ["a", "b"]


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize("data", [b"", b"a\n", bytes(range(256)) * 9000])
def test_what_is_packed_is_unpacked_and_holds_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: str, data: bytes
) -> None:
    paths = [tmp_path / f"{name}{packed}" for name in "ab"]
    for now, path in enumerate(paths):
        monkeypatch.setattr("time.time", lambda now=now: 1e9 * now)
        with path.open("wb") as file, compressed(file, path) as stream:
            stream.write(data)
    written = paths[0].read_bytes()
    assert b"".join(decompressed(paths[0])) == data
    assert (written == data) == (packed == "")
    assert paths[1].read_bytes() == written


def test_truncated_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "text.parquet", table("parquet")[:-20])
    with pytest.raises(MTError, match=r"text\.parquet is damaged or cut short \(.*fetch it again"):
        list(read_table(path, EN_DE))


@pytest.mark.parametrize("form", ["tsv.gz", "tsv.xz", "tsv.zst", "parquet"])
def test_a_wrong_byte_anywhere_is_told_or_does_no_harm(tmp_path: Path, form: str) -> None:
    kind, _, packed = form.partition(".")
    content = table(kind)
    if packed:
        content = COMPRESS[f".{packed}"](content)
    for place in range(len(content)):
        wrong = content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :]
        with contextlib.suppress(MTError):
            list(read_table(write(tmp_path / f"text.{form}", wrong), EN_DE))


def test_deep_json_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "text.jsonl", b"[" * 100_000)
    with pytest.raises(MTError, match=r"text\.jsonl: line 1 is not JSON"):
        list(read_table(path, EN_DE))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MTError, match=r"cannot read .*none\.tsv: No such file"):
        list(read_table(tmp_path / "none.tsv", EN_DE))


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "parquet"])
def test_missing_column_names_those_there(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / f"text.{form}", table(form))
    with pytest.raises(MTError, match=rf"text\.{form}.* no column 'fr' but .*'de'.*target_column"):
        list(read_table(path, Columns("en", "fr")))
    with pytest.raises(MTError, match=rf"text\.{form}.* no column 'x' but .*'de'.*source_column"):
        list(read_table(path, Columns("en", "de", source="x")))


def test_columns_by_option_and_generic_name(tmp_path: Path) -> None:
    path = write(tmp_path / "text.tsv", "source\tmine\ttarget\nA\tB\tC\n")
    assert list(read_table(path, EN_DE)) == [("A", "C")]
    assert list(read_table(path, Columns("en", "de", target="mine"))) == [("A", "B")]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_translation_column(tmp_path: Path, form: str) -> None:
    cell: list[object] = [{"de": "Haus", "en": "house"}, {"de": None, "en": "x"}]
    lines = "\n".join(json.dumps({"translation": one}) for one in cell).encode()
    data = lines if form == "jsonl" else parquet({"translation": cell})
    path = write(tmp_path / f"text.{form}", data)
    assert list(read_table(path, EN_DE)) == [("house", "Haus"), ("x", "")]
    with pytest.raises(MTError, match=r"translation has no column 'fr' but 'de', 'en'"):
        list(read_table(path, Columns("en", "fr")))


def test_headless_table_takes_the_first_two_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "text.tsv", "\nGo.\tGeh.\tCC-BY\nHi.\tHallo.\n\n")
    assert list(read_table(path, EN_DE)) == [("Go.", "Geh."), ("Hi.", "Hallo.")]
    path.write_text("Go.\tGeh.\nHi.\n")
    with pytest.raises(MTError, match=r"text\.tsv: line 2 has 1 column\(s\), not 2 or more"):
        list(read_table(path, EN_DE))


def test_line_breaks_and_lone_cr_in_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "text.csv", 'en,de\r\n"a \r\n\n b","c\rd"\r\ne\rf,g\r\n')
    assert list(read_table(path, EN_DE)) == [("a b", "c\rd"), ("e\rf", "g")]
    path = write(tmp_path / "text.jsonl", json.dumps({"en": "a\nb", "de": "c\r\nd"}))
    assert list(read_table(path, EN_DE)) == [("a b", "c d")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", 'en,de\na,"b\nc', r"x\.csv: line 3: .*is a quote left open"),
        ("x.jsonl", '{"en": "a", "de": "b"}\n{"en"', r"x\.jsonl: line 2 is not JSON"),
        ("x.jsonl", "[1]", r"x\.jsonl: line 1 is not a JSON object"),
        ("x.jsonl", '{"en": 3, "de": "b"}', r"x\.jsonl: line 1: expected text, found int"),
        ("x.jsonl", '{"en": "\\ud800", "de": "b"}', r"x\.jsonl: line 1 spells half"),
    ],
)
def test_malformed_rows_name_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(MTError, match=message):
        list(read_table(write(tmp_path / name, text), EN_DE))
