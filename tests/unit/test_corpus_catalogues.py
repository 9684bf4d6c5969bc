"""Catalogues, from a small wheel and small help pages that stand in for the real packages."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from mt.corpus import load_corpus
from mt.corpus.catalogues import home_assistant, home_assistant_languages, libreoffice_help
from mt.corpus.labelled import load_labelled
from mt.errors import MTError
from mt.recipe import Cleaning, Corpus, LabelledCleaning, LabelledCorpus, LabelledSource, Source

WHEEL = "homeassistant-2026.2.3-py3-none-any.whl"
TEXTS = {
    "sun": {
        "en": {"title": "Sun", "state": {"up": "The sun  is\nup", "down": "Down", "same": "Sun"}},
        "de": {"title": "Sonne", "state": {"up": "Die Sonne ist\n\n aufgegangen", "same": "Sonne"}},
        "pt-BR": {"title": "Sol"},
    },
    "moon": {
        "en": {"title": "[%key:component::sun::title%]", "phase": "Phase {n}", "none": ""},
        "de": {"title": "Mond", "phase": "Phase {n}", "none": "Nichts", "number": 3},
    },
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_wheel(folder: Path) -> Path:
    """Write a wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    information = "homeassistant-2026.2.3.dist-info"
    files = {
        f"homeassistant/components/{component}/translations/{language}.json": json.dumps(tree)
        for component, languages in TEXTS.items()
        for language, tree in languages.items()
    }
    files[f"{information}/METADATA"] = (
        "Metadata-Version: 2.1\nName: homeassistant\nVersion: 2026.2.3\n"
    )
    files[f"{information}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(
        f"{name},sha256={urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode()},\n"
        for name, text in files.items()
    )
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, text in {**files, f"{information}/RECORD": record}.items():
            archive.writestr(name, text)
    return folder / WHEEL


def test_home_assistant_pairs_texts_by_key(cache: Path) -> None:
    wheel = write_wheel(cache / "home-assistant")
    found = home_assistant("en", "de")
    assert found.description == "Home Assistant 2026.2.3 (Apache-2.0)"
    assert found.files == [wheel]
    assert list(found.pairs()) == [
        ("Sun", "Sonne"),
        ("The sun is up", "Die Sonne ist aufgegangen"),
        ("Phase {n}", "Phase {n}"),
    ]
    assert list(home_assistant("pt-BR", "de").pairs()) == [("Sol", "Sonne")]


def test_home_assistant_names_its_languages(cache: Path) -> None:
    write_wheel(cache / "home-assistant")
    with pytest.raises(MTError, match="no language 'tlh'; it has de, en, pt-BR"):
        home_assistant("en", "tlh")


def test_damaged_wheel(cache: Path) -> None:
    wheel = write_wheel(cache / "home-assistant")
    wheel.write_bytes(wheel.read_bytes()[:-40])
    with pytest.raises(MTError, match=rf"{WHEEL} is damaged .*delete it"):
        home_assistant("en", "de")


def test_home_assistant_as_a_source(cache: Path) -> None:
    write_wheel(cache / "home-assistant")
    rules = Cleaning(identical=False)
    corpus = load_corpus(Corpus(sources=[Source(catalogue="home-assistant")], cleaning=rules))
    assert corpus.origin == ["Home Assistant 2026.2.3 (Apache-2.0), en-de, 3 pairs"]
    sets = (corpus.train, corpus.valid, corpus.tests["test"])
    assert sorted(text for data in sets for text in data["source"]) == [
        "Phase {n}",
        "Sun",
        "The sun is up",
    ]


def test_home_assistant_in_all_languages(cache: Path) -> None:
    wheel = write_wheel(cache / "home-assistant")
    found = home_assistant_languages()
    assert found.files == [wheel]
    assert sorted(found.texts()) == [
        ("Die Sonne ist aufgegangen", "de", "sun.state.up"),
        ("Down", "en", "sun.state.down"),
        ("Mond", "de", "moon.title"),
        ("Nichts", "de", "moon.none"),
        ("Phase {n}", "de", "moon.phase"),
        ("Phase {n}", "en", "moon.phase"),
        ("Sol", "pt", "sun.title"),
        ("Sonne", "de", "sun.state.same"),
        ("Sonne", "de", "sun.title"),
        ("Sun", "en", "sun.state.same"),
        ("Sun", "en", "sun.title"),
        ("The sun is up", "en", "sun.state.up"),
    ]


def test_translations_of_one_text_are_on_one_side_of_a_cut(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = "abcdefghijklmnopqrst"
    trees = {
        "en": {f"{a}{b}": f"the {a} and {b}" for a in letters for b in letters},
        "en-GB": {f"{a}{b}": f"the {a} or {b}" for a in letters for b in letters},
        "de": {f"{a}{b}": f"das {a} und {b}" for a in letters for b in letters} | {"x": "[x]"},
        "nl": {"x": "[x]", "y": "één"},
    }
    monkeypatch.setitem(TEXTS, "sun", trees)
    write_wheel(cache / "home-assistant")
    sources = [LabelledSource(catalogue="home-assistant-languages")]
    rules = LabelledCleaning(held_out="exact", min_examples=10)
    found = load_labelled(
        LabelledCorpus(sources=sources, valid_size=90, test_size=60, cleaning=rules)
    )
    assert found.classes == ["de", "en"]  # Dutch had one text left: the other was German, too
    assert found.origin == ["Home Assistant 2026.2.3 (Apache-2.0), all languages"]
    sides = {}
    sizes = {"train": 0, "valid": 0, "test": 0}
    for side, part in (("train", found.train), ("valid", found.valid), *found.tests.items()):
        for text in part.texts:
            sizes[side] += 1
            if text.startswith(("the ", "das ")):
                _, first, _, second = text.split()
                assert sides.setdefault(first + second, side) == side
    assert (sizes["valid"], sizes["test"]) == (90, 60)
    assert set(sides.values()) == {"train", "valid", "test"}


def test_pip_brings_the_wheel_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert len(list(home_assistant("en", "de").pairs())) == 3
    shown = capfd.readouterr()
    assert shown.err == "homeassistant 2026.2.3: downloading with pip\n"
    assert shown.out == ""
    names = {path.name for path in (cache / "home-assistant").iterdir()}
    assert names == {WHEEL, "homeassistant-2026.2.3-py3-none-any.lock"}
    (tmp_path / "index" / WHEEL).unlink()
    home_assistant("en", "de")
    assert capfd.readouterr().err == ""


def test_failed_download_is_one_line_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        MTError, match=r"cannot download homeassistant.*--corpus\.files DIR"
    ) as caught:
        home_assistant("en", "de")
    assert "\n" not in str(caught.value)
    assert not [*(cache / "home-assistant").glob("*.whl"), *(cache / "home-assistant").glob("p*")]


# LibreOffice

ENGLISH = """<!DOCTYPE html><html><head><title>T</title></head><body>
<p dir="auto">without an id</p>
<h1 id="hd_id1"><a name="x"></a>Saving <b>Files</b></h1>
<div class="tip"><p id="par_id2">Choose <span class="menuitem">File &amp; <em>Save</em></span>,
   or press <span class="switchinline"><span hidden="true" id="MACtextx_1" class="MAC">Command
   <span>x</span></span><span hidden="true" id="defaulttextx_1">Ctrl</span></span>+S<br>now.</p>
</div>
<p id="par_id3">Only English</p><p id="par_id4">One</p><p id="par_id4">Two</p><p id="par_id5"></p>
</body></html>"""
GERMAN = """<html><body><h1 id="hd_id1">Dateien <b>speichern</b></h1>
<p id="par_id4">Eins</p><p id="par_id4">Zwei</p><p id="par_id5">leer</p>
<p id="par_id2">W\u00e4hlen Sie <span>Datei</span>, oder dr\u00fccken Sie Strg+S.</p>
</body></html>"""

FAKE_APT = """#!/bin/sh
case "$2" in
  libreoffice-help-tlh) echo "E: Unable to locate package $2" >&2; exit 100 ;;
  libreoffice-help-fr) echo "W: a warning"; echo "E: Failed to fetch http://x 404" >&2; exit 100 ;;
esac
echo "Get:1 http://x $2"
echo "$2" > "$2_4%3a7.4.7-1+deb12u14_all.deb"
"""
FAKE_CACHE = """#!/bin/sh
test -f "$LISTS" && cat "$LISTS"
"""
FAKE_DPKG = """#!/bin/sh
mkdir -p "$3" && cp -r "$HELP/$(cat "$2")/." "$3"
"""


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which apt brings two help packages."""
    tools = tmp_path / "bin"
    tools.mkdir()
    scripts = {"apt-get": FAKE_APT, "apt-cache": FAKE_CACHE, "dpkg-deb": FAKE_DPKG}
    for name, script in scripts.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    for package, folder, page in (("en-us", "en-US", ENGLISH), ("de", "de", GERMAN)):
        text = (
            tmp_path / f"help/libreoffice-help-{package}/usr/share/libreoffice/help/{folder}/text"
        )
        (text / "shared").mkdir(parents=True)
        (text / "shared" / "save.html").write_text(page, encoding="utf-8")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.setenv("HELP", str(tmp_path / "help"))
    monkeypatch.setenv("LISTS", str(tmp_path / "lists"))
    return tmp_path


def test_libreoffice_help_is_aligned_by_paragraph(
    debian: Path, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = libreoffice_help("en", "de")
    assert found.description == "LibreOffice help 7.4.7 (MPL-2.0)"
    assert list(found.pairs()) == [
        ("Saving Files", "Dateien speichern"),
        (
            "Choose File & Save, or press Ctrl+S now.",
            "W\u00e4hlen Sie Datei, oder dr\u00fccken Sie Strg+S.",
        ),
        ("One", "Eins"),
        ("Two", "Zwei"),
    ]
    assert capfd.readouterr().err.splitlines() == [
        "libreoffice-help-en-us: downloading with apt",
        "libreoffice-help-de: downloading with apt",
    ]
    assert {path.suffix for path in (cache / "libreoffice-help").iterdir()} == {".deb", ".lock"}
    (debian / "bin/apt-get").unlink()  # not needed again
    assert libreoffice_help("de", "en").files == found.files[::-1]


def test_libreoffice_help_without_what_it_needs(
    debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        MTError, match="apt knows no package libreoffice-help-tlh; run `apt-get upd"
    ):
        libreoffice_help("en", "tlh")
    (debian / "lists").write_text("libreoffice-help-de - x\nlibreoffice-help-en-us - y\n")
    with pytest.raises(MTError, match="has no language 'tlh'; it has de, en-us"):
        libreoffice_help("en", "tlh")
    with pytest.raises(MTError, match=r"libreoffice-help-fr with apt \(E: Failed .*apt-get update"):
        libreoffice_help("en", "fr")
    monkeypatch.setenv("PATH", str(debian))
    with pytest.raises(MTError, match="needs apt, as on Debian and Ubuntu"):
        libreoffice_help("en", "fr")


def test_damaged_package(debian: Path) -> None:
    found = libreoffice_help("en", "de")
    (debian / "bin/dpkg-deb").write_text(
        "#!/bin/sh\necho 'dpkg-deb: error: cut short' >&2; exit 2\n"
    )
    with pytest.raises(
        MTError, match=r"\.deb is damaged \(dpkg-deb: error: cut short\); delete it"
    ):
        list(found.pairs())


def test_naming_the_package_imports_nothing_heavy() -> None:
    check = (
        "import sys, mt.corpus; import mt.corpus as c; assert 'load_corpus' in c.__all__;"
        "assert not {'datasets', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
