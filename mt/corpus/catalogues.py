"""Texts that a package manager brings: user-interface catalogues and help pages, in pairs.

A catalogue is downloaded once, into the cache folder, and read from the archive: never installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from mt.corpus.formats import Pair
from mt.corpus.store import locked
from mt.errors import MTError
from mt.files import cache_folder


class Catalogue(NamedTuple):
    """A catalogue on disk, for one pair of languages."""

    description: str  # name, version and licence
    files: list[Path]  # what the pairs are read from
    pairs: Callable[[], Iterator[Pair]]  # distinct pairs


# Home Assistant

_HOME_ASSISTANT = "2026.2.3"
_MEMBER = re.compile(r"homeassistant/components/([^/]+)/translations/([\w-]+)\.json")


def home_assistant(source: str, target: str) -> Catalogue:
    """Bring the texts of Home Assistant's user interface, English and over 60 languages.

    Raises `MTError` for a failed download, a damaged wheel, and a language that is not there.
    """
    wheel, known = _home_assistant_wheel()
    _check_languages("Home Assistant", known, source, target)

    def pairs() -> Iterator[Pair]:
        texts: dict[str, dict[str, str]] = {source: {}, target: {}}
        for key, language, text in _home_assistant_texts(wheel, {source, target}):
            texts[language][key] = text
        yield from _distinct(texts[source], texts[target])

    return Catalogue(f"Home Assistant {_HOME_ASSISTANT} (Apache-2.0)", [wheel], pairs)


class LanguageCatalogue(NamedTuple):
    """A catalogue on disk, in all its languages."""

    description: str  # name, version and licence
    files: list[Path]  # what the texts are read from
    texts: Callable[[], Iterator[tuple[str, str, str]]]  # text, language, and the text's key


def home_assistant_languages() -> LanguageCatalogue:
    """Bring the texts of Home Assistant's user interface in every language.

    A language goes by the first part of its code: `pt-BR` counts as `pt`, `en-GB` as `en`,
    `zh-Hans` and `zh-Hant` as `zh`, `sr-Latn` as `sr`. Translations of one text have one key.

    Raises `MTError` for a failed download and a damaged wheel.
    """
    wheel, _ = _home_assistant_wheel()

    def texts() -> Iterator[tuple[str, str, str]]:
        for key, language, text in _home_assistant_texts(wheel):
            if (folded := " ".join(text.split())) and "[%key" not in folded:  # a reference
                yield folded, language.partition("-")[0], key

    return LanguageCatalogue(f"Home Assistant {_HOME_ASSISTANT} (Apache-2.0)", [wheel], texts)


def _home_assistant_wheel() -> tuple[Path, set[str]]:
    """Bring the wheel, and tell the languages in it."""
    wheel = cache_folder("home-assistant") / f"homeassistant-{_HOME_ASSISTANT}-py3-none-any.whl"
    if not wheel.exists():
        _pip_download(wheel)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(wheel, error) from None
    return wheel, {match[2] for name in names if (match := _MEMBER.fullmatch(name))}


def _home_assistant_texts(
    wheel: Path, languages: set[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yield the key, language and text of each string, of some languages or all."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                match = _MEMBER.fullmatch(name)
                if match and (languages is None or match[2] in languages):
                    tree = json.loads(archive.read(name))
                    for key, text in _leaves(tree, match[1]):
                        yield key, match[2], text
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise _damaged(wheel, error) from None


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(tree, str) and "[%key:" not in tree:  # a reference to another text
        yield path, tree


def _pip_download(wheel: Path) -> None:
    """Bring a wheel into the cache, whole or not at all."""
    name, version = wheel.name.split("-")[:2]
    with locked(wheel.with_suffix(".lock")), _scratch(wheel.parent) as scratch:
        if wheel.exists():  # another process was faster
            return
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--no-cache-dir", "--only-binary=:all:"]
        command += ["--python-version", "3.14", "--dest", str(scratch), f"{name}=={version}"]
        output = _run(command, scratch, f"{name} {version}: downloading with pip")
        if not (scratch / wheel.name).exists():
            advice = "check the network and try again"
            if "No module named pip" in output:
                advice = f"install pip with `{sys.executable} -m ensurepip`"
            raise MTError(
                f"cannot download {name} {version} with pip ({_reason(output)}); {advice}, or use "
                "your own text: --corpus.files DIR"
            )
        os.replace(scratch / wheel.name, wheel)


# LibreOffice help

_DEBIAN_NAMES = {
    "en": "en-us",
    "zh-hans": "zh-cn",
    "zh-hant": "zh-tw",
    "nn-no": "nn",
    "pt-pt": "pt",
}


def libreoffice_help(source: str, target: str) -> Catalogue:
    """Bring LibreOffice's help pages from the Debian or Ubuntu archive, about 35 languages.

    Raises `MTError` where there is no apt, for a failed download, a damaged package, and a
    language that is not there.
    """
    packages = [_debian_package(language) for language in (source, target)]
    version = re.sub(r"^\d+(?:%3a|:)|[-+~].*", "", packages[0].name.split("_")[1])

    def pairs() -> Iterator[Pair]:
        with _scratch(packages[0].parent) as scratch:
            texts = []
            for package in packages:
                folder = scratch / package.name.split("_")[0]
                output = _run(["dpkg-deb", "--extract", str(package), str(folder)], scratch)
                pages = [*folder.glob("usr/share/libreoffice/help/*/text")]
                if len(pages) != 1:
                    raise _damaged(package, _reason(output))
                texts.append(_paragraphs(pages[0]))
            yield from _distinct(*texts)

    return Catalogue(f"LibreOffice help {version} (MPL-2.0)", packages, pairs)


def _debian_package(language: str) -> Path:
    """Return the package of a language in the cache, downloading it if it is not there."""
    folder = cache_folder("libreoffice-help")
    code = language.lower().replace("_", "-")
    name = f"libreoffice-help-{_DEBIAN_NAMES.get(code, code)}"
    with locked(folder / f"{name}.lock"), _scratch(folder) as scratch:
        if there := sorted(folder.glob(f"{name}_*.deb")):
            return there[-1]
        if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
            raise MTError(
                "corpus: libreoffice-help needs apt, as on Debian and Ubuntu; elsewhere use "
                "home-assistant, or your own text: --corpus.files DIR"
            )
        output = _run(["apt-get", "download", name], scratch, f"{name}: downloading with apt")
        for package in scratch.glob("*.deb"):
            os.replace(package, folder / package.name)
            return folder / package.name
        if "Unable to locate" in output or "No candidate" in output:
            found = _run(["apt-cache", "--names-only", "search", "^libreoffice-help-"], scratch)
            known = re.findall(r"^libreoffice-help-(?!common)(\S+)", found, re.MULTILINE)
            if known:
                _check_languages("LibreOffice help", set(known), name[len("libreoffice-help-") :])
            raise MTError(
                f"apt knows no package {name}; run `apt-get update` as root first, then try again"
            )
        raise MTError(
            f"cannot download {name} with apt ({_reason(output)}); run `apt-get update` as root "
            "first, or use your own text: --corpus.files DIR"
        )


def _paragraphs(pages: Path) -> dict[str, str]:
    """Return the paragraphs of a tree of help pages by page, paragraph id and occurrence."""
    texts: dict[str, str] = {}
    for page in sorted(pages.rglob("*.html")):
        name = page.relative_to(pages)
        parser = _HelpPage()
        parser.feed(page.read_text(encoding="utf-8", errors="replace"))
        for identifier, occurrences in parser.paragraphs.items():
            for number, text in enumerate(occurrences):
                texts[f"{name}#{identifier}.{number}"] = text
    return texts


class _HelpPage(HTMLParser):
    """Collects the text of the paragraphs and headings that bear an id."""

    _PARAGRAPHS = ("p", "h1", "h2", "h3", "h4", "h5", "h6")
    _VOID = ("br", "img", "meta", "link", "input", "hr", "source", "base", "wbr", "col")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: dict[str, list[str]] = defaultdict(list)
        self._open: str | None = None  # the id of the open paragraph
        self._text: list[str] = []
        self._hidden = 0  # elements open since a hidden one, itself included

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in self._PARAGRAPHS:
            self._close()
            self._open = values.get("id")
        elif tag in self._VOID:
            self._text.append(" " if tag == "br" else "")
        elif self._hidden:
            self._hidden += 1
        # Text for one system or application stands beside the text for all others.
        elif "hidden" in values and not (values.get("id") or "").startswith("default"):
            self._hidden = 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self._PARAGRAPHS:
            self._close()
        elif self._hidden and tag not in self._VOID:
            self._hidden -= 1

    def handle_data(self, data: str) -> None:
        if self._open is not None and not self._hidden:
            self._text.append(data)

    def _close(self) -> None:
        if self._open is not None:
            self.paragraphs[self._open].append("".join(self._text))
        self._open, self._text, self._hidden = None, [], 0


# Both


def _distinct(source: dict[str, str], target: dict[str, str]) -> Iterator[Pair]:
    """Pair texts by key; blanks are folded, empty texts and repeated pairs left out."""
    seen = set()
    for key, text in source.items():
        pair = " ".join(text.split()), " ".join(target.get(key, "").split())
        if all(pair) and pair not in seen:
            seen.add(pair)
            yield pair


def _check_languages(name: str, known: set[str], *wanted: str) -> None:
    for language in wanted:
        if language not in known:
            raise MTError(f"{name} has no language {language!r}; it has {', '.join(sorted(known))}")


def _damaged(file: Path, reason: object) -> MTError:
    return MTError(f"{file} is damaged ({reason}); delete it and it is downloaded again")


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as scratch:
        yield Path(scratch)


def _run(command: list[str], scratch: Path, progress: str = "") -> str:
    """Run a command in a scratch folder and return what it printed, telling how far it is.

    Raises `MTError` where the command is missing.
    """
    # The temporary files lie on the disk of the cache, so that their growth can be seen. The last
    # lines of the output tell why a command failed: no warning may stand there.
    environment = {**os.environ, "TMPDIR": str(scratch), "LC_ALL": "C", "PYTHONWARNINGS": "ignore"}
    log = scratch / "output"
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            raise MTError(f"cannot run {command[0]}: {error.strerror}") from None
        try:
            _report(process, scratch, progress)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    return log.read_text(encoding="utf-8", errors="replace")


def _report(process: subprocess.Popen[bytes], scratch: Path, progress: str) -> None:
    if not progress:
        process.wait()
        return
    print(progress, end="", file=sys.stderr, flush=True)
    while process.poll() is None:
        time.sleep(0.2)
        if sys.stderr.isatty():
            done = sum(
                os.path.getsize(os.path.join(folder, name))
                for folder, _, names in os.walk(scratch)
                for name in names
                if os.path.exists(os.path.join(folder, name))
            )
            print(f"\r{progress}: {done / 1e6:.0f} MB", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def _reason(output: str) -> str:
    """Pick the line of a command's output that tells what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(?i)e:|err|.*error", line)]
    return (errors or lines or ["no reason given"])[-1]
