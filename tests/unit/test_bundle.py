"""Bundles: whole, checked, data only."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from mt.bundle import Bundle, load_bundle, save_bundle
from mt.errors import MTError
from mt.search.options import SearchOptions
from mt.search.shortlist import Shortlist
from mt.translator import Translator

FILES = {"model.safetensors", "config.json", "README.md", "tokenizer.model"}
Make = Callable[..., Bundle]


@pytest.fixture
def folder(make_bundle: Make, tmp_path: Path) -> Path:
    save_bundle(make_bundle(), tmp_path / "bundle")
    return tmp_path / "bundle"


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the configuration as somebody would by hand."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Exchange a file along with its digest, so that only deeper checks can find it."""
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    edit(folder, lambda config: config["sha256"].update({name: digest}))


@pytest.mark.parametrize(
    ("tie", "joint"),
    [
        ("none", True),
        ("two-way", True),
        ("three-way", True),
        ("none", False),
        ("two-way", False),
    ],
)
def test_round_trip(tie: str, joint: bool, make_bundle: Make, tmp_path: Path) -> None:
    saved = make_bundle(joint, tie_embeddings=tie, attention="additive")
    saved = saved._replace(search=SearchOptions(beam_size=3, length_penalty=0.7))
    save_bundle(saved, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.languages == ("xx", "yy")
    assert loaded.search == saved.search
    assert loaded.card == saved.card
    assert loaded.model.architecture == saved.model.architecture
    assert not loaded.model.training
    assert (loaded.tokenizers.source is loaded.tokenizers.target) == joint
    for one, other in zip(loaded.tokenizers, saved.tokenizers, strict=True):
        assert one.model == other.model
    expected = saved.model.state_dict()
    assert expected.keys() == loaded.model.state_dict().keys()
    for name, weight in loaded.model.state_dict().items():
        assert weight.equal(expected[name]), name
    embedding = loaded.model.decoder.embedding.weight
    assert (loaded.model.output.weight is embedding) == (tie != "none")
    assert (loaded.model.encoder.embedding.weight is embedding) == (tie == "three-way")
    assert loaded.shortlist is None
    texts = ["abc def", "ghij"]
    assert Translator(loaded, "cpu").n_best(texts) == Translator(saved, "cpu").n_best(texts)


def shortlisted(make_bundle: Make) -> Bundle:
    bundle = make_bundle()
    size = len(bundle.tokenizers.source)
    likely = torch.arange(size * 2).view(-1, 2) % size
    return bundle._replace(shortlist=Shortlist(likely, torch.tensor([5, 3])))


def test_a_shortlist_travels_in_the_bundle(make_bundle: Make, tmp_path: Path) -> None:
    saved = shortlisted(make_bundle)
    save_bundle(saved, tmp_path / "bundle")
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.shortlist is not None
    for one, other in zip(loaded.shortlist, saved.shortlist or (), strict=True):
        assert one.equal(other)
    texts = ["abc def", "ghij"]
    found = Translator(loaded, "cpu").n_best(texts)
    assert found == Translator(saved, "cpu").n_best(texts)
    without = saved._replace(shortlist=None)
    assert found != Translator(without, "cpu").n_best(texts)
    off = SearchOptions(shortlist=False)
    expected = Translator(without, "cpu").n_best(texts, off)
    assert Translator(loaded, "cpu").n_best(texts, off) == expected


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda parts: parts.pop("frequent"), "other tensors"),
        (lambda parts: parts.update(likely=parts["likely"][:, 0].clone()), "wrong shape"),
        (lambda parts: parts.update(likely=parts["likely"][1:].clone()), "as long as the voc"),
        (lambda parts: parts["likely"].fill_(100_000), "not in the vocabulary"),
        (lambda parts: parts["frequent"].fill_(-1), "not in the vocabulary"),
        (lambda parts: parts.update(frequent=parts["frequent"].float()), "not in the vocabulary"),
    ],
)
def test_a_shortlist_that_does_not_fit(
    change: Callable[[dict[str, torch.Tensor]], Any],
    fault: str,
    make_bundle: Make,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bundle"
    save_bundle(shortlisted(make_bundle), folder)
    parts = load_file(folder / "shortlist.safetensors")
    change(parts)
    rewrite(folder, "shortlist.safetensors", save(parts))
    with pytest.raises(MTError, match=rf"shortlist\.safetensors: .*{fault}.*copy the bundle again"):
        load_bundle(folder)


def test_a_loaded_model_can_learn_on(folder: Path) -> None:
    model = load_bundle(folder).model
    vectors = model(torch.tensor([[5, 3]]), torch.tensor([2]), torch.tensor([[2, 4]]))
    model.output(vectors).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_only_known_data_files_are_written(folder: Path, make_bundle: Make) -> None:
    assert {file.name for file in folder.iterdir()} == FILES
    two = folder.with_name("two")
    save_bundle(make_bundle(joint=False), two)
    assert {f.name for f in two.iterdir()} == FILES - {"tokenizer.model"} | {
        "source.model",
        "target.model",
    }
    assert {file.name for file in folder.parent.iterdir()} == {"bundle", "two"}
    json.loads((folder / "config.json").read_bytes())
    load_file(folder / "model.safetensors")


def test_nothing_is_unpickled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load_bundle(folder)


def test_weights_are_stored_once_and_in_float32(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    save_bundle(bundle._replace(model=bundle.model.double()), tmp_path / "bundle")
    weights = load_file(tmp_path / "bundle" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert sum(w.numel() for w in weights.values()) == sum(
        p.numel() for p in bundle.model.parameters()
    )
    tables = [w for w in weights.values() if w.shape == (15, 12)]
    assert len(tables) == 1


def test_saving_leaves_the_model_as_it_was(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle()
    double = bundle.model.double().train()
    save_bundle(bundle, tmp_path / "bundle")
    assert double.output.weight.dtype == torch.float64
    assert double.training


def test_saving_is_deterministic(make_bundle: Make, tmp_path: Path) -> None:
    for name in ("one", "other"):
        save_bundle(make_bundle(), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


# Damage


def refused(folder: Path, *named: str) -> str:
    with pytest.raises(MTError) as caught:
        load_bundle(folder)
    message = str(caught.value)
    assert "\n" not in message
    for name in named:
        assert name in message
    return message


def test_no_bundle_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "nothing")
    (tmp_path / "file").write_text("hello")
    refused(tmp_path / "file", "file")
    refused(tmp_path, "config.json")


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
def test_a_missing_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    refused(folder, str(folder / name))


@pytest.mark.parametrize("name", sorted(FILES - {"README.md"}))
@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_truncated_file(name: str, part: float, folder: Path) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: int(len(content) * part)])
    refused(folder, str(folder / name))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.model"])
@pytest.mark.parametrize("place", [0, 0.3, 0.7, -1])
def test_a_flipped_byte(name: str, place: float, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(len(content) * place) if place >= 0 else -1] ^= 0x10
    (folder / name).write_bytes(content)
    refused(folder, str(folder / name), "damaged")


@pytest.mark.parametrize("name", ["source.model", "target.model"])
def test_an_exchanged_tokenizer(name: str, make_bundle: Make, tmp_path: Path) -> None:
    save_bundle(make_bundle(joint=False), tmp_path / "bundle")
    others = {"source.model": "target.model", "target.model": "source.model"}
    (tmp_path / "bundle" / name).write_bytes((tmp_path / "bundle" / others[name]).read_bytes())
    refused(tmp_path / "bundle", name)


def test_every_flipped_byte_of_the_configuration_loads_or_is_refused(
    folder: Path,
) -> None:
    """Never another exception."""
    file = folder / "config.json"
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        for bit in (0x01, 0x10):
            damaged = bytearray(content)
            damaged[place] ^= bit
            file.write_bytes(damaged)
            try:
                load_bundle(folder)
            except MTError as error:
                message = str(error)
            else:
                continue
            assert str(folder) in message


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"[]", b"null", b"\xff\xfe\x00", b'{"a": 1}', b'{"format": "x"}']
)
def test_a_configuration_that_is_none(content: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(content)
    refused(folder, str(folder / "config.json"))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version(version: object, folder: Path) -> None:
    edit(folder, lambda config: config.update(version=version))
    assert "train again" in refused(folder, "config.json", f"version {version}")


@pytest.mark.parametrize(
    "key",
    [
        "format",
        "version",
        "source_language",
        "target_language",
        "source_vocabulary",
        "target_vocabulary",
        "architecture",
        "search",
        "sha256",
    ],
)
def test_a_key_is_missing_or_of_the_wrong_type(key: str, folder: Path) -> None:
    original = (folder / "config.json").read_text()
    edit(folder, lambda config: config.pop(key))
    refused(folder, "config.json")
    (folder / "config.json").write_text(original)
    edit(folder, lambda config: config.update({key: [1]}))
    refused(folder, "config.json")


@pytest.mark.parametrize("section", ["architecture", "search"])
def test_an_unknown_option(section: str, folder: Path) -> None:
    edit(folder, lambda config: config[section].update(magic=1))
    refused(folder, "config.json", "`magic`")


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("architecture", "hidden_size", "wide"),
        ("architecture", "hidden_size", -5),
        ("architecture", "hidden_size", 0),
        ("architecture", "hidden_size", None),
        ("architecture", "encoder_layers", 1.5),
        ("architecture", "encoder_layers", 0),
        ("architecture", "decoder_layers", 0),
        ("architecture", "wiring", "spiral"),
        ("architecture", "attention", "no"),
        ("architecture", "attention_heads", 0),
        ("architecture", "tie_embeddings", "four-way"),
        ("architecture", "bridge", "stone"),
        ("architecture", "bidirectional", "no"),
        ("architecture", "layer_dropout", 2.0),
        ("architecture", "layer_dropout", "much"),
        ("search", "beam_size", 0),
        ("search", "beam_size", "many"),
        ("search", "beam_size", 2.5),
        ("search", "beam_size", None),
        ("search", "normalization", "none"),
        ("search", "length_penalty", []),
        ("search", "n_best", 100),
    ],
)
def test_an_impossible_option(section: str, option: str, value: object, folder: Path) -> None:
    edit(folder, lambda config: config[section].update({option: value}))
    refused(folder, "config.json")


@pytest.mark.parametrize("side", ["source_vocabulary", "target_vocabulary"])
def test_another_vocabulary_size(side: str, folder: Path) -> None:
    edit(folder, lambda config: config.update({side: 99}))
    refused(folder, "config.json", "vocabulary")


@pytest.mark.parametrize("change", ["shape", "missing", "unexpected", "architecture"])
def test_other_weights_than_the_architecture_wants(change: str, folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "decoder.combine.weight"
    if change == "shape":
        weights[name] = weights[name].T.contiguous()
    elif change == "missing":
        del weights[name]
    elif change == "unexpected":
        name = "decoder.extra"
        weights[name] = torch.zeros(1)
    else:
        name = "decoder.layers.0"
        edit(folder, lambda config: config["architecture"].update(hidden_size=20))
    save_file(weights, file)
    rewrite(folder, file.name, file.read_bytes())
    refused(folder, str(file), *([name] if change != "architecture" else ["shape"]))


def test_files_that_are_damaged_along_with_their_digest(folder: Path) -> None:
    original = (folder / "model.safetensors").read_bytes()
    rewrite(folder, "model.safetensors", original[:-4])
    refused(folder, str(folder / "model.safetensors"))
    rewrite(folder, "model.safetensors", b"not weights")
    refused(folder, str(folder / "model.safetensors"))
    rewrite(folder, "model.safetensors", original)
    load_bundle(folder)
    rewrite(folder, "tokenizer.model", b"no tokenizer")
    refused(folder, str(folder / "tokenizer.model"))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16])
def test_weights_of_another_type(dtype: torch.dtype, folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({name: weight.to(dtype) for name, weight in load_file(file).items()}, file)
    rewrite(folder, file.name, file.read_bytes())
    refused(folder, str(file), "float32")


def test_the_card_may_be_edited_or_removed(folder: Path) -> None:
    (folder / "README.md").write_text("# Mine\n")
    assert load_bundle(folder).card == "# Mine\n"
    (folder / "README.md").unlink()
    assert load_bundle(folder).card == ""


# Replacing


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_older_bundle_is_replaced_as_a_whole(folder: Path, make_bundle: Make) -> None:
    (folder / "left-over.txt").write_text("old")
    save_bundle(make_bundle(joint=False, seed=2), folder)
    assert "left-over.txt" not in contents(folder)
    assert "tokenizer.model" not in contents(folder)
    load_bundle(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_the_older_bundle(
    folder: Path, make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = contents(folder), []

    def full(_: int) -> None:
        calls.append(1)
        if len(calls) == 2:  # in the middle of the files
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MTError, match=r"bundle: cannot write the bundle \(No space left"):
        save_bundle(make_bundle(seed=2), folder)
    assert contents(folder) == before
    assert [file.name for file in folder.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_exchange_leaves_the_older_bundle(
    failing: int, folder: Path, make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename, calls = contents(folder), Path.rename, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(1)
        if len(calls) == failing:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(MTError, match="Permission denied"):
        save_bundle(make_bundle(seed=2), folder)
    monkeypatch.undo()
    assert contents(folder) == before
    assert [file.name for file in folder.parent.iterdir()] == ["bundle"]


def test_an_interruption_leaves_the_older_bundle(
    folder: Path, make_bundle: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename, calls = contents(folder), Path.rename, []

    def interrupt(self: Path, target: Path) -> Path:
        calls.append(1)
        if len(calls) == 2:  # the older bundle is out of the way, the new one not yet there
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(make_bundle(seed=2), folder)
    monkeypatch.undo()
    assert contents(folder) == before


def test_a_place_that_cannot_be_written(make_bundle: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MTError, match="cannot write the bundle"):
        save_bundle(make_bundle(), tmp_path / "file" / "bundle")
    assert (tmp_path / "file").read_text() == "in the way"
