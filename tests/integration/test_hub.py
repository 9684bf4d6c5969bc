"""The hub as a source, against a small server on the loopback that stands in for it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

SHA = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"  # no one listens on this port
PLAIN = "someone/plain"
OPUS = "someone/opus"
NAMED = "someone/named"


def lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def plain(start: int, stop: int) -> bytes:
    return lines(
        *({"en": f"sentence {chr(i)}", "de": f"Satz {chr(i)}"} for i in range(start, stop))
    )


REVIEWS = """---
dataset_info:
  features:
  - name: body
    dtype: string
  - name: mood
    dtype:
      class_label:
        names:
          '0': sad
          '1': glad
---
"""

REPOSITORIES: dict[str, dict[str, bytes]] = {
    NAMED: {
        "README.md": REVIEWS.encode(),
        "train.jsonl": lines(
            *({"body": f"review {chr(i)}", "mood": i % 2} for i in range(97, 117)),
            {"body": "no one has told", "mood": -1},
        ),
        "test.jsonl": lines({"body": "a film", "mood": 1}, {"body": "a book", "mood": 0}),
    },
    PLAIN: {
        "train.jsonl": plain(97, 117),
        "val.jsonl": plain(117, 119),
        "test.jsonl": plain(119, 122),
    },
    OPUS: {
        "README.md": b"---\nconfigs:\n- config_name: de-en\n  data_files:\n  - split: train\n"
        b"    path: de-en/train.jsonl\n---\n",
        "de-en/train.jsonl": lines(
            *(
                {"translation": {"de": f"Wort {chr(i)}", "en": f"word {chr(i)}"}}
                for i in range(97, 122)
            )
        ),
    },
}


class Hub(BaseHTTPRequestHandler):
    """Answers what the hub's client asks of small repositories, in full or cut short."""

    protocol_version = "HTTP/1.1"
    truncate = ""  # name of a file that breaks off half-way

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for name, files in REPOSITORIES.items():
            if path.startswith(f"/datasets/{name}/resolve/"):
                self._file(files, path.split("/", 6)[6])
                return
            if path.startswith(f"/api/datasets/{name}"):
                self._api(name, files, path.removeprefix(f"/api/datasets/{name}"))
                return
        self._missing("RepoNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def _api(self, name: str, files: dict[str, bytes], rest: str) -> None:
        if rest.startswith(("/tree/", "/paths-info/")):
            folder = "".join(rest.split("/", 3)[3:]) + "/" * (rest.count("/") > 2)
            inside = {file: file.removeprefix(folder) for file in files if file.startswith(folder)}
            if folder and not inside:
                self._missing("EntryNotFound")
                return
            folders = {folder + name.split("/")[0] for name in inside.values() if "/" in name}
            entries = [{"type": "directory", "path": path, "oid": "0"} for path in folders]
            for file, name in inside.items():
                if "/" not in name or rest.startswith("/paths-info/"):
                    size, oid = len(files[file]), etag(files[file])
                    entries.append({"type": "file", "path": file, "size": size, "oid": oid})
            self._json(entries)
        elif rest == "" or rest.startswith("/revision/"):
            siblings = [{"rfilename": file} for file in files]
            info = {"id": name, "sha": SHA, "siblings": siblings, "private": False, "tags": []}
            self._json({**info, "gated": False, "disabled": False, "downloads": 0, "likes": 0})
        else:
            self._missing("EntryNotFound")

    def _file(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            self._missing("EntryNotFound")
            return
        data = files[name]
        headers = {"ETag": f'"{etag(data)}"', "X-Repo-Commit": SHA, "Accept-Ranges": "bytes"}
        self._answer(data, headers, cut=name == self.truncate)

    def _json(self, content: object) -> None:
        self._answer(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._answer(b"", {"X-Error-Code": code}, status=404)

    def _answer(
        self, data: bytes, headers: dict[str, str], status: int = 200, cut: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
import json, sys, time
time.sleep = lambda seconds: None  # the hub's client pauses between its tries
from mt import MTError
from mt.corpus import load_corpus
from mt.recipe import Corpus, Source
for source in json.loads(sys.argv[1]):
    try:
        corpus = load_corpus(Corpus(sources=[Source(**source)]))
    except MTError as error:
        print(json.dumps(str(error)))
    else:
        sets = {"train": corpus.train, "valid": corpus.valid, **corpus.tests}
        print(json.dumps([{name: data[:] for name, data in sets.items()}, corpus.origin]))
"""


def load(home: Path, endpoint: str, *sources: dict[str, Any], script: str = LOAD) -> list[Any]:
    """Load sources in one process: the sets and origin of each, or its error."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "MT_"))}
    environment = {
        **keep,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "MT_CACHE": str(home / "mt"),
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(sources)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""  # no bars, no log lines
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_columns_and_named_splits(hub: str, tmp_path: Path) -> None:
    opus = {"hub": OPUS, "config": "de-en", "splits": {"train": "train"}}
    online = load(tmp_path, hub, {"hub": PLAIN}, opus)
    (sets, origin), (opus_sets, opus_origin) = online
    assert len(sets["train"]["source"]) == 20
    assert sets["valid"] == {"source": ["sentence u", "sentence v"], "target": ["Satz u", "Satz v"]}
    assert len(sets["test"]["source"]) == 3
    assert origin == [f"{PLAIN} (Hugging Face Hub), en-de, 20 pairs"]

    sizes = {name: len(data["source"]) for name, data in opus_sets.items()}
    assert sizes == {"train": 21, "valid": 2, "test": 2}
    source, target = (opus_sets["test"][side][0] for side in ("source", "target"))
    assert source.replace("word", "Wort") == target
    assert opus_origin == [f"{OPUS} (Hugging Face Hub, de-en), en-de, 25 pairs"]

    # What was fetched serves without the hub.
    assert load(tmp_path, NOWHERE, {"hub": PLAIN}, opus) == online


def test_mistakes_are_named_in_one_line(hub: str, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], list[str]]] = [
        ({"hub": "someone/absent"}, ["someone/absent", "not on the hub"]),
        ({"hub": OPUS, "config": "de-fr"}, [OPUS, "de-fr", "de-en"]),
        ({"hub": OPUS, "config": "de-en"}, [OPUS, "validation", "train"]),
        ({"hub": PLAIN, "source_column": "sv"}, [PLAIN, "'sv'", "'en'", "'de'", "source_column"]),
    ]
    errors = load(tmp_path, hub, *(source for source, _ in cases))
    for error, (_, words) in zip(errors, cases, strict=True):
        assert isinstance(error, str)
        assert "\n" not in error
        assert all(word in error for word in words), error


def test_unreachable_hub_tells_how_to_go_offline(tmp_path: Path) -> None:
    (error,) = load(tmp_path, NOWHERE, {"hub": PLAIN})
    assert PLAIN in error
    assert "--corpus.files DIR" in error
    assert "\n" not in error


def test_interrupted_download_leaves_nothing(hub: str, tmp_path: Path) -> None:
    Hub.truncate = "train.jsonl"
    try:
        (error,) = load(tmp_path, hub, {"hub": PLAIN})
    finally:
        Hub.truncate = ""
    assert "--corpus.files DIR" in error
    assert "\n" not in error
    ((sets, _),) = load(tmp_path, hub, {"hub": PLAIN})
    assert len(sets["train"]["source"]) == 20


LOAD_LABELLED = """
import json, sys
from mt import MTError
from mt.corpus.labelled import load_labelled
from mt.recipe import LabelledCorpus, LabelledSource
for source in json.loads(sys.argv[1]):
    try:
        found = load_labelled(LabelledCorpus(sources=[LabelledSource(**source)]))
    except MTError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps([found.classes, found.train, found.valid, found.tests, found.origin]))
"""


def test_numbers_become_the_names_that_the_hub_has_for_them(hub: str, tmp_path: Path) -> None:
    splits = {"train": "train", "test": "test"}
    columns = {"text_column": "body", "label_column": "mood"}
    found, wrong, none = load(
        tmp_path,
        hub,
        {"hub": NAMED, "splits": splits, **columns},
        {"hub": NAMED, "splits": splits, "text_column": "body"},
        {"hub": NAMED, "splits": {"training": "train"}, **columns},
        script=LOAD_LABELLED,
    )
    classes, train, valid, tests, origin = found
    assert classes == ["glad", "sad"]
    assert tests == {"test": [["a film", "a book"], [0, 1]]}
    texts, labels = train[0] + valid[0], train[1] + valid[1]
    assert sorted(texts) == [f"review {chr(i)}" for i in range(97, 117)]  # nothing without a label
    assert all(
        label == ("glad", "sad").index("glad" if ord(text[-1]) % 2 else "sad")
        for text, label in zip(texts, labels, strict=True)
    )
    assert origin == [f"{NAMED} (Hugging Face Hub)"]
    assert "'label'" in wrong
    assert "label_column" in wrong
    assert "'training' is no split" in none
