"""What every test may use: one thread, a cache of its own, tiny text and small random models."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors gain nothing from more
# Commands share the cores with other tests: a thread that spins while it waits holds them all up.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from hypothesis import settings

from mt.bundle import Bundle
from mt.nn.architecture import Architecture
from mt.nn.seq2seq import Seq2Seq
from mt.recipe import TokenizerSpec
from mt.search.options import SearchOptions
from mt.tokenizer import Tokenizer, Tokenizers, train_tokenizer

SAMPLE = 20
"""One in so many of the tests that are marked `every` is in the suite."""

settings.register_profile("mt", deadline=None, print_blob=True)
settings.load_profile("mt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every", action="store_true", help="run all of what is marked `every`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave a sample of the tests that are marked `every`."""
    if not config.getoption("--every"):
        many = [item for item in items if item.get_closest_marker("every")]
        left_out = set(many) - set(many[::SAMPLE])
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what can be made again out of the user's own cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests run side by side, a process on each core: more threads would wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def words() -> list[str]:
    """Sentences of invented words over the letters a to j."""
    generator = random.Random(1)
    vocabulary = [
        "".join(generator.choices("abcdefghij", k=generator.randint(1, 6))) for _ in range(60)
    ]
    return [" ".join(generator.choices(vocabulary, k=generator.randint(1, 8))) for _ in range(400)]


@pytest.fixture(scope="session")
def tokenizer(cache: Path, words: list[str]) -> Tokenizer:
    """A BPE model with byte fallback."""
    return train_tokenizer(TokenizerSpec(vocab_size=300), lambda: words)


@pytest.fixture(scope="session")
def letters(cache: Path, words: list[str]) -> Tokenizer:
    """A model whose tokens are single letters, so that every token string has one spelling."""
    spec = TokenizerSpec(vocab_size=15, byte_fallback=False)
    return train_tokenizer(spec, lambda: words)


@pytest.fixture(scope="session")
def make_bundle(tokenizer: Tokenizer, letters: Tokenizer) -> Callable[..., Bundle]:
    """Make a bundle with a small random model; keywords are options of the architecture."""

    def make(joint: bool = True, seed: int = 1, **options: object) -> Bundle:
        tokenizers = Tokenizers(letters, letters if joint else tokenizer)
        sizes: dict[str, object] = {"embedding_size": 12, "hidden_size": 16}
        if not joint:
            sizes["tie_embeddings"] = "two-way"
        torch.manual_seed(seed)
        model = Seq2Seq(Architecture(**(sizes | options)), *map(len, tokenizers))
        return Bundle(model.eval(), tokenizers, ("xx", "yy"), SearchOptions(), "# A model\n")

    return make
