"""Greedy and beam search against exhaustive search and against a plain beam search in Python."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from mt.errors import MTError
from mt.nn.architecture import LanguageModelArchitecture
from mt.nn.language_model import LanguageNetwork
from mt.search import Fusion, Hypothesis, SearchOptions, search
from mt.search.beam import beam_search
from mt.search.constraints import Constraints
from mt.search.scoring import best_token, best_tokens

BOS, EOS = 0, 1
VOCABULARY = 5  # four tokens beside the end of sentence
HIDDEN = 6


class TinyState(NamedTuple):
    hidden: Tensor  # (B, K, HIDDEN), nan where a place is empty
    memory: Tensor  # (B, S, HIDDEN), kept once a sentence
    padding: Tensor  # (B, S), True at padding
    places: Tensor  # (R,), those that are not empty

    def reorder(self, index: Tensor, places: Tensor | None = None) -> TinyState:
        sentences, width = self.hidden.shape[:2]
        assert index.dtype == torch.long
        owners = index // width
        assert (owners == owners[:, :1]).all(), "a row mixes sentences"
        places = torch.arange(index.numel()) if places is None else places
        assert (places.diff() > 0).all()
        assert set((places // index.shape[1]).tolist()) == set(range(len(index)))
        hidden = torch.full((index.numel(), HIDDEN), math.nan, dtype=torch.float64)
        hidden[places] = self.hidden.flatten(0, 1)[index.flatten()[places]]
        assert not hidden[places].isnan().any(), "a place that was empty"
        kept = owners[:, 0]
        assert (kept.diff() > 0).all()
        if len(index) == sentences:
            assert kept.equal(torch.arange(len(index)))
        hidden = hidden.view(*index.shape, HIDDEN)
        return TinyState(hidden, self.memory[kept], self.padding[kept], places)


class Step(NamedTuple):
    logits: Tensor
    attention: Tensor | None
    state: TinyState | ScriptState


class TinyDecoder:
    """Random probabilities that depend on the whole history and, by attention, on the source."""

    def __init__(self, seed: int, *, grid: float = 0.0, vocabulary: int = VOCABULARY) -> None:
        random = torch.Generator().manual_seed(seed)

        def weight(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64)

        self.embeddings = weight(vocabulary, HIDDEN) * 1.5
        self.recurrent = weight(HIDDEN, HIDDEN)
        self.from_context = weight(HIDDEN, HIDDEN)
        self.output = weight(vocabulary, HIDDEN)
        self.bias = weight(vocabulary)
        self.grid = grid  # rounds the logits to its multiples, so that there are ties
        self.rows: list[int] = []  # decoded at each step
        self.with_attention = True
        self.banned: set[int] = set()  # tokens of no probability
        self.dtype = torch.float64

    def start(self, sources: list[Tensor], width: int = 0) -> TinyState:
        """Sources (S_i, HIDDEN), each with its end of sentence, padded to `width` or more."""
        width = max(width, *(len(source) for source in sources))
        memory = torch.full((len(sources), width, HIDDEN), 7.0, dtype=torch.float64)
        padding = torch.ones(len(sources), width, dtype=torch.bool)
        for i, source in enumerate(sources):
            memory[i, : len(source)] = source
            padding[i, : len(source)] = False
        hidden = memory.new_zeros(len(sources), 1, HIDDEN)
        return TinyState(hidden, memory, padding, torch.arange(len(sources)))

    def step(self, tokens: Tensor, state: TinyState) -> Step:
        self.rows.append(len(tokens))
        sentences = state.places // state.hidden.shape[1]
        hidden = state.hidden.flatten(0, 1)[state.places]
        hidden = torch.tanh(self.embeddings[tokens] + hidden @ self.recurrent.T)
        energies = (state.memory[sentences] @ hidden.unsqueeze(2)).squeeze(2)
        weights = energies.masked_fill(state.padding[sentences], -math.inf).softmax(dim=1)
        context = (weights.unsqueeze(1) @ state.memory[sentences]).squeeze(1)
        hidden = torch.tanh(hidden + context @ self.from_context.T)
        logits = hidden @ self.output.T + self.bias
        if self.grid:
            logits = (logits / self.grid).round() * self.grid
        if self.banned:
            logits[:, sorted(self.banned)] = -math.inf
        spread = torch.full_like(state.hidden, math.nan).flatten(0, 1)
        spread[state.places] = hidden
        after = state._replace(hidden=spread.view_as(state.hidden))
        return Step(logits.to(self.dtype), weights if self.with_attention else None, after)


def make_sources(seed: int, lengths: list[int]) -> list[Tensor]:
    """A source for each length, plus its end of sentence; different for each seed and place."""
    return [
        torch.randn(n + 1, HIDDEN, generator=torch.Generator().manual_seed(97 * seed + i)).double()
        for i, n in enumerate(lengths)
    ]


def run(
    decoder: TinyDecoder,
    sources: list[Tensor],
    options: SearchOptions,
    *,
    width: int = 0,
    **arguments: object,
) -> list[list[Hypothesis]]:
    lengths = torch.tensor([len(source) - 1 for source in sources])
    state = decoder.start(sources, width)
    return search(decoder, state, lengths, options, bos=BOS, eos=EOS, **arguments)


# What the options mean, written a second time and as plainly as possible.


class Rules:
    def __init__(self, options, source, forbidden=(), prefix=(), counts=()):
        n = len(source) - 1
        self.options, self.n = options, n
        self.forbidden, self.prefix, self.counts = set(forbidden), list(prefix), dict(counts)
        cap = options.max_length if options.max_length else 2 * n + 10
        cap = min(cap, 512)
        if options.max_length_ratio:
            cap = min(cap, max(1, int(round(options.max_length_ratio * n, 6))))
        low = max(options.min_length, math.ceil(round(options.min_length_ratio * n, 6)))
        self.cap = max(cap, len(self.prefix))
        self.low = min(low, cap)

    def may_follow(self, history: list[int], token: int) -> bool:
        """Whether the options allow `token` after the legal `history`."""
        t = len(history)
        if t < len(self.prefix):
            return token == self.prefix[t]
        wanting = {c: max(0, n - history.count(c)) for c, n in self.counts.items()}
        if t < self.cap <= t + sum(wanting.values()):  # the rest is for what is wanting
            return (
                wanting.get(token, 0) > 0
                and token not in self.forbidden
                and self._new(history, token)
            )
        if token == EOS:
            return t == self.cap or (t >= self.low and not any(wanting.values()))
        if t >= self.cap or token in self.forbidden:
            return False
        if token in self.counts and not wanting[token]:
            return False
        return self._new(history, token)

    def _new(self, history: list[int], token: int) -> bool:
        if token in self.counts:
            return True
        n = self.options.no_repeat_ngram
        if not n or len(history) < n - 1:
            return True
        after = [*history, token]
        ngrams = [tuple(after[i : i + n]) for i in range(len(after) - n + 1)]
        return ngrams[-1] not in ngrams[:-1]

    def score(self, log_probability: float, length: int, attention: Tensor) -> float:
        """`length` counts the end of sentence; `attention` (S,) is summed over all steps."""
        if self.options.normalization == "gnmt":
            norm = ((5 + length) / (5 + 1)) ** self.options.length_penalty
        else:
            norm = length**self.options.length_penalty
        total = log_probability / norm
        if self.options.coverage_penalty:
            seen = [min(max(float(a), 1e-8), 1.0) for a in attention[: self.n]]
            total += self.options.coverage_penalty * sum(math.log(a) for a in seen)
        return total


class Scorer:
    """log p(token | history) of one sentence alone, a history at a time."""

    def __init__(self, decoder: TinyDecoder, source: Tensor) -> None:
        self.decoder = decoder
        self.known = {(): (self._step(BOS, decoder.start([source])), 0.0)}

    def _step(self, token, state):
        output = self.decoder.step(torch.tensor([token]), state)
        return output.logits[0].log_softmax(0).tolist(), output.attention[0], output.state

    def __call__(self, history):
        """Log-probabilities (V,) after `history`, and the attention summed up to this step."""
        key = tuple(history)
        if key not in self.known:
            self(key[:-1])
            (_, _, state), _ = self.known[key[:-1]]
            self.known[key] = (self._step(key[-1], state), 0.0)
        coverage = sum(self.known[key[:i]][0][1] for i in range(len(key) + 1))
        return self.known[key][0][0], coverage


def exhaustive(scorer: Scorer, rules: Rules) -> list[Hypothesis]:
    """Every sentence that the options allow, best first."""
    found: list[Hypothesis] = []

    def visit(history: list[int], log_probability: float) -> None:
        log_probs, attention = scorer(history)
        for token, log_prob in enumerate(log_probs):
            if not rules.may_follow(history, token):
                continue
            total = log_probability + log_prob
            if token == EOS:
                score = rules.score(total, len(history) + 1, attention)
                found.append(Hypothesis(history, total, score, len(history) < rules.cap))
            else:
                visit([*history, token], total)

    visit([], 0.0)
    return sorted(found, key=lambda hypothesis: -hypothesis.score)


def plain_beam(scorer: Scorer, rules: Rules) -> tuple[list[Hypothesis], int]:
    """Beam search in lists, run until nothing is alive; also tells after how many steps."""
    live: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[Hypothesis] = []
    steps = 0
    while live:
        steps += 1
        candidates = []
        for history, log_probability in live:
            log_probs, attention = scorer(history)
            for token, log_prob in enumerate(log_probs):
                if rules.may_follow(history, token):
                    candidates.append((log_probability + log_prob, history, token, attention))
        candidates.sort(key=lambda candidate: -candidate[0])  # stable: hypothesis, then token
        live_before, live = live, []
        for total, history, token, attention in candidates[
            : rules.options.beam_size - len(finished)
        ]:
            if token == EOS:
                score = rules.score(total, len(history) + 1, attention)
                finished.append(Hypothesis(history, total, score, len(history) < rules.cap))
            else:
                live.append(([*history, token], total))
        assert live_before
    finished.sort(key=lambda hypothesis: -hypothesis.score)
    return finished[: rules.options.n_best], steps


def assert_same(found: list[Hypothesis], wanted: list[Hypothesis], tolerance: float = 1e-9) -> None:
    assert [h.tokens for h in found] == [h.tokens for h in wanted]
    assert [h.finished for h in found] == [h.finished for h in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.log_probability == pytest.approx(theirs.log_probability, abs=tolerance)
        assert ours.score == pytest.approx(theirs.score, abs=tolerance)


@st.composite
def problems(draw, longest: int = 4):
    """A decoder's seed, sources, options without a beam size, and the limits on tokens."""
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    low = draw(st.integers(0, 3))
    low_ratio = draw(st.sampled_from([0.0, 0.0, 0.5, 0.75]))
    options = {
        "length_penalty": draw(st.sampled_from([0.0, 0.6, 1.0, 2.0, -0.5])),
        "normalization": draw(st.sampled_from(["average", "gnmt"])),
        "coverage_penalty": draw(st.sampled_from([0.0, 0.0, 0.2, 1.5])),
        "no_repeat_ngram": draw(st.integers(0, 3)),
        "min_length": low,
        "min_length_ratio": low_ratio,
        "max_length": draw(st.integers(max(low, 1), longest)),
        "max_length_ratio": draw(st.sampled_from([0.0, 0.0, 0.75, 1.0])),
    }
    forbidden = draw(st.sets(st.sampled_from([0, 2, 3, 4]), max_size=2))
    token = st.sampled_from([0, 2, 3, 4])
    prefixes = draw(
        st.none()
        | st.lists(st.lists(token, max_size=3), min_size=len(lengths), max_size=len(lengths))
    )
    counted = draw(st.sampled_from([(), (), (3,), (0, 3)]))
    counts = [{token: draw(st.integers(0, 2)) for token in counted} for _ in lengths]
    seed = draw(st.integers(0, 10_000))
    limits = {"forbidden": sorted(forbidden), "prefixes": prefixes, "counts": counts}
    return seed, make_sources(seed, lengths), options, limits


def each_sentence(problem, options):
    """(place, rules) of every sentence."""
    _, sources, _, limits = problem
    prefixes = limits["prefixes"] or [()] * len(sources)
    for i, source in enumerate(sources):
        yield i, Rules(options, source, limits["forbidden"], prefixes[i], limits["counts"][i])


many = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@many
@given(problems())
def test_a_wide_beam_is_exhaustive_search(problem):
    seed, sources, fields, limits = problem
    # There are 1 + 4 + 16 + 64 + 256 sentences of at most four tokens: a slot for each.
    options = SearchOptions(beam_size=341, n_best=341, **fields)
    decoder = TinyDecoder(seed)
    results = run(decoder, sources, options, **limits)
    for i, rules in each_sentence(problem, options):
        assert_same(results[i], exhaustive(Scorer(decoder, sources[i]), rules))


@many
@given(problems(), st.integers(1, 6))
def test_a_wide_beam_returns_the_n_best(problem, n_best):
    """With fewer places than sentences, the early stop must not lose any."""
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=341, n_best=n_best, **fields)
    decoder = TinyDecoder(seed)
    results = run(decoder, sources, options, **limits)
    for i, rules in each_sentence(problem, options):
        assert_same(results[i], exhaustive(Scorer(decoder, sources[i]), rules)[:n_best])


@many
@given(problems(longest=9), st.integers(1, 4), st.data())
def test_a_narrow_beam_is_the_plain_beam_without_early_stop(problem, beam_size, data):
    seed, sources, fields, limits = problem
    n_best = data.draw(st.integers(1, beam_size))
    options = SearchOptions(beam_size=beam_size, n_best=n_best, **fields)
    decoder = TinyDecoder(seed)
    results = run(decoder, sources, options, **limits)
    for i, rules in each_sentence(problem, options):
        assert_same(results[i], plain_beam(Scorer(decoder, sources[i]), rules)[0])


@many
@given(problems(longest=6), st.integers(1, 4), st.data())
def test_a_shortlist_is_a_decoder_that_gives_the_other_tokens_no_probability(
    problem, beam_size, data
):
    """Each sentence of a batch has its own; the end, prefixes and counted tokens need no leave."""
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, **fields)
    tokens = st.sets(st.sampled_from(range(VOCABULARY)))
    lists = [data.draw(tokens) for _ in sources]
    allowed = torch.zeros(len(sources), VOCABULARY, dtype=torch.bool)
    for row, chosen in zip(allowed, lists, strict=True):
        row[sorted(chosen)] = True
    results = run(TinyDecoder(seed), sources, options, allowed=allowed, **limits)
    for i, rules in each_sentence(problem, options):
        decoder = TinyDecoder(seed)
        decoder.banned = {*range(VOCABULARY)} - {EOS, *lists[i], *rules.prefix, *rules.counts}
        rules.forbidden |= decoder.banned
        assert_same(results[i], plain_beam(Scorer(decoder, sources[i]), rules)[0])


class Advised(Scorer):
    """log p(token | history, source) + weight * log q(token | history), q token by token."""

    def __init__(self, decoder: TinyDecoder, source: Tensor, fusion: Fusion) -> None:
        super().__init__(decoder, source)
        self.fusion = fusion

    def __call__(self, history):
        log_probs, coverage = super().__call__(history)
        state, last = None, BOS
        for token in (*history, None):
            told = self.fusion.language.step(torch.tensor([last]), state)
            state, last = told.state, token
        said = told.logits[0].log_softmax(0).tolist()
        weight = self.fusion.weight
        return [one + weight * other for one, other in zip(log_probs, said, strict=True)], coverage


def language(layers: int) -> LanguageNetwork:
    torch.manual_seed(layers)
    architecture = LanguageModelArchitecture(embedding_size=4, hidden_size=5, layers=layers)
    model = LanguageNetwork(architecture, VOCABULARY).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@many
@given(problems(), st.integers(1, 4), st.sampled_from([0.0, 0.3, 2.0]), st.booleans())
def test_fusion_adds_what_a_language_model_says_of_the_same_history(
    problem, beam_size, weight, shortlist
):
    """With a shortlist too, the language model is asked about all tokens."""
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, **fields)
    fusion = Fusion(language(1 + seed % 2), weight)
    arguments = dict(limits)
    if shortlist:
        arguments["allowed"] = torch.tensor([[True, False, True, True, False]] * len(sources))
    results = run(TinyDecoder(seed), sources, options, fusion=fusion, **arguments)
    for i, rules in each_sentence(problem, options):
        decoder = TinyDecoder(seed)
        if shortlist:
            decoder.banned = {1, 4} - {EOS, *rules.prefix, *rules.counts}
            rules.forbidden |= decoder.banned
        assert_same(results[i], plain_beam(Advised(decoder, sources[i], fusion), rules)[0])


def test_a_shortlist_spares_the_decoder_the_other_tokens():
    asked = []

    class Narrowing(TinyDecoder):
        def narrow(self, candidates):
            asked.append(candidates.tolist())
            narrowed = TinyDecoder(1)
            narrowed.output = narrowed.output[candidates]
            narrowed.bias = narrowed.bias[candidates]
            return narrowed

    allowed = torch.zeros(2, VOCABULARY, dtype=torch.bool)
    allowed[0, 3] = allowed[1, 4] = True
    narrowing, sources = Narrowing(1), make_sources(1, [2, 3])
    found = run(narrowing, sources, SearchOptions(), allowed=allowed)
    assert asked == [[BOS, EOS, 3, 4]]
    assert not narrowing.rows  # it was never asked for all tokens
    wanted = run(TinyDecoder(1), sources, SearchOptions(), allowed=allowed)
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


@many
@given(problems(longest=6), st.integers(1, 4), st.sampled_from([0.5, 2.0, 100.0]))
def test_ties_go_to_the_earlier_hypothesis_and_the_lower_token(problem, beam_size, grid):
    """Coarse logits tie often; at the coarsest, every token is always equally probable."""
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, **fields)
    decoder = TinyDecoder(seed, grid=grid)
    results = run(decoder, sources, options, **limits)
    for i, rules in each_sentence(problem, options):
        assert_same(results[i], plain_beam(Scorer(decoder, sources[i]), rules)[0])


def test_ties_in_a_large_vocabulary():
    """Where `topk` alone takes whichever of the equals it meets."""
    decoder = TinyDecoder(0, grid=100.0, vocabulary=3000)
    options = SearchOptions(beam_size=3, n_best=3, max_length=2, min_length=2)
    [found] = run(decoder, make_sources(0, [2]), options, forbidden=[0, 2])
    assert [h.tokens for h in found] == [[3, 3], [3, 4], [3, 5]]


@pytest.mark.parametrize("vocabulary", [100, 900, 1024, 3001])
@pytest.mark.parametrize("levels", [3, 50, 0])
def test_the_best_of_many_tokens_are_those_of_a_stable_sort(vocabulary: int, levels: int) -> None:
    random = torch.Generator().manual_seed(vocabulary + levels)
    log_probs = torch.randn(60, vocabulary, generator=random)
    if levels:  # ties, among the best too
        log_probs = (log_probs * levels).round() / levels
    log_probs[log_probs < -1] = -math.inf
    log_probs[0] = -math.inf
    ranked = log_probs.sort(dim=1, descending=True, stable=True).indices
    assert best_token(log_probs).equal(ranked[:, 0])
    for count in (1, 5):
        values, tokens, undecided = best_tokens(log_probs, count, exact=True)
        assert tokens[1:].equal(ranked[1:, :count].sort(dim=1).values)
        assert values.equal(log_probs.gather(1, tokens))
        assert not undecided.any()
        quick, some, undecided = best_tokens(log_probs, count, exact=False)
        assert some[~undecided][1:].equal(tokens[~undecided][1:])
        assert quick.sort(dim=1).values.equal(values.sort(dim=1).values)


class ScriptState(NamedTuple):
    hypotheses: Tensor  # (R,), nothing but their number

    def reorder(self, index: Tensor, places: Tensor | None = None) -> ScriptState:
        index = index.flatten() if places is None else index.flatten()[places]
        return ScriptState(self.hypotheses.new_zeros(len(index)))


class Script:
    """Certain of token 2, whatever came before, but at one step: there it may also end."""

    def __init__(self, fork: int, end: float, onward: float, last: int) -> None:
        self.fork, self.end, self.onward, self.last = fork, end, onward, last
        self.steps = 0

    def step(self, tokens: Tensor, state: ScriptState) -> Step:
        probabilities = torch.full((30,), 1e-12, dtype=torch.float64)
        if self.steps == self.fork:
            probabilities += (1 - math.exp(self.end) - math.exp(self.onward)) / 28
            probabilities[EOS], probabilities[2] = math.exp(self.end), math.exp(self.onward)
        else:
            probabilities[EOS if self.steps >= self.last else 2] = 1.0
        self.steps += 1
        return Step(probabilities.log().expand(len(tokens), -1), None, state)


@pytest.mark.parametrize(
    ("fields", "lengths", "script", "best"),
    [
        # At step 0, -0.55 / 1 is above -2 / 3 and below -2 / 4: only the last length beats it.
        ({"max_length": 3}, [3], (0, -0.55, -2.0, 3), 3),
        ({"max_length": 3}, [3], (0, -0.49, -2.0, 3), 0),
        # ((5 + 4) / 6) ** 2 is 2.25: -0.95 is above -2 / 1.78 (a length less), below -2 / 2.25.
        (
            {"max_length": 3, "normalization": "gnmt", "length_penalty": 2.0},
            [3],
            (0, -0.95, -2.0, 3),
            3,
        ),
        # Multiplied by the length: -1.3 is below -0.35 * 2 and above -0.35 * 4.
        ({"max_length": 3, "length_penalty": -1.0}, [3], (0, -1.3, -0.35, 1), 1),
        # The bound of a sentence stays its own once a shorter neighbour, listed first, has left.
        ({"max_length_ratio": 1.0}, [1, 6], (2, -1.2, -2.0, 6), 6),
    ],
)
def test_the_bound_of_the_early_stop_is_tight(fields, lengths, script, best):
    state = ScriptState(torch.arange(len(lengths)))
    options = SearchOptions(beam_size=2, **fields)
    found = search(Script(*script), state, torch.tensor(lengths), options, bos=BOS, eos=EOS)
    assert found[-1][0].tokens == [2] * best


def test_the_early_stop_does_stop_early():
    """And changes nothing: over many decoders, some searches end well before the plain beam."""
    saved = 0
    for seed in range(40):
        options = SearchOptions(
            beam_size=3, max_length=12, length_penalty=[0.0, 0.6, 1.0][seed % 3]
        )
        sources = make_sources(seed, [3])
        decoder = TinyDecoder(seed)
        [found] = run(decoder, sources, options)
        ours = len(decoder.rows)
        wanted, steps = plain_beam(Scorer(decoder, sources[0]), Rules(options, sources[0]))
        assert_same(found, wanted)
        assert ours <= steps
        saved += steps - ours
    assert saved >= 40


@many
@given(problems(longest=9), st.integers(1, 4), st.integers(0, 3), st.randoms())
def test_a_translation_never_depends_on_its_batch(problem, beam_size, padding, random):
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, **fields)
    decoder = TinyDecoder(seed)
    order = [*range(len(sources)), 0]  # in any order, one twice
    random.shuffle(order)
    prefixes = limits["prefixes"] or [[]] * len(sources)

    def some(places: list[int]) -> dict[str, object]:
        return limits | {
            "prefixes": [prefixes[i] for i in places],
            "counts": [limits["counts"][i] for i in places],
        }

    together = run(
        decoder,
        [sources[i] for i in order],
        options,
        width=max(len(source) for source in sources) + padding,
        **some(order),
    )
    for place, i in enumerate(order):
        [alone] = run(decoder, [sources[i]], options, **some([i]))
        assert_same(together[place], alone, tolerance=1e-12)


@many
@given(problems(longest=9), st.sampled_from([0.0, 1.0]))
def test_greedy_is_the_beam_of_one(problem, grid):
    seed, sources, fields, limits = problem
    options = SearchOptions(beam_size=1, **fields)
    decoder = TinyDecoder(seed, grid=grid)
    greedy = run(decoder, sources, options, **limits)
    greedy_rows, decoder.rows = decoder.rows, []
    lengths = torch.tensor([len(source) - 1 for source in sources])
    constraints = Constraints(
        lengths.tolist(),
        options,
        eos=EOS,
        **limits,
        device=torch.device("cpu"),
    )
    beam = beam_search(decoder, decoder.start(sources), lengths, options, constraints, bos=BOS)
    for ours, theirs in zip(greedy, beam, strict=True):
        assert_same(ours, theirs, tolerance=0)
    assert greedy_rows == decoder.rows


@pytest.mark.parametrize("beam_size", [1, 3])
def test_finished_sentences_leave_the_batch(beam_size):
    """With the end out of reach, each sentence leaves one step after its greatest length."""
    decoder = TinyDecoder(3)
    options = SearchOptions(beam_size=beam_size, min_length_ratio=1.0, max_length_ratio=1.0)
    results = run(decoder, make_sources(3, [4, 1, 2]), options)
    assert decoder.rows == [3, *(beam_size * n for n in (3, 2, 1, 1))]
    assert [len(found[0].tokens) for found in results] == [4, 1, 2]
    assert not any(found[0].finished for found in results)


def test_only_live_hypotheses_are_decoded():
    """A batch needs at each step the rows that its sentences need alone."""
    decoder = TinyDecoder(11)
    decoder.bias[EOS] += 1.0
    options = SearchOptions(beam_size=4, n_best=4, max_length=8)
    sources = make_sources(11, [3, 5, 1])
    needed = []
    for some in ([sources[0]], [sources[1]], [sources[2]], sources):
        decoder.rows = []
        run(decoder, some, options)
        needed.append(decoder.rows)
    *alone, together = needed
    assert together == [sum(rows) for rows in itertools.zip_longest(*alone, fillvalue=0)]
    assert all(rows[0] == 1 and max(rows) < 4 for rows in alone)  # the end is among the first
    assert any(0 < row < 4 for row in alone[0][2:])


def test_a_log_probability_is_that_of_forced_decoding():
    """Options that forbid tokens do not renormalise what remains."""
    decoder, [source] = TinyDecoder(5), make_sources(5, [3])
    options = SearchOptions(beam_size=3, n_best=3, max_length=4, min_length=3, no_repeat_ngram=1)
    [found] = run(decoder, [source], options, forbidden=[0], prefixes=[[2]])
    assert len(found) == 2  # 3 and 4 in either order
    scorer = Scorer(decoder, source)
    for h in found:
        path = [*h.tokens, EOS]
        forced = sum(scorer(path[:i])[0][token] for i, token in enumerate(path))
        assert h.log_probability == pytest.approx(forced, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("beam_size", [1, 4])
def test_narrow_logits_are_normalised_in_float32(dtype, beam_size):
    decoder, [source] = TinyDecoder(8, grid=0.25), make_sources(8, [4])
    options = SearchOptions(beam_size=beam_size, max_length=8)
    [wide] = run(decoder, [source], options)
    decoder.dtype = dtype  # multiples of 1/4 are the same numbers in all of them
    [found] = run(decoder, [source], options)
    assert_same(found, wide, tolerance=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_what_cannot_be_leaves_nothing(beam_size):
    """Impossible tokens never survive; a sentence without any possible one has no translation."""
    sources = make_sources(1, [2, 2])
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, max_length=3)
    decoder = TinyDecoder(1)
    decoder.bias[EOS] = -math.inf
    assert run(decoder, sources, options) == [[], []]
    decoder = TinyDecoder(1)
    decoder.bias[3] = -math.inf
    assert all(3 not in h.tokens for found in run(decoder, sources, options) for h in found)
    assert run(decoder, sources, options, prefixes=[[3], []])[0] == []
    decoder.bias[2] = math.nan
    assert run(decoder, sources, options) == [[], []]


def test_one_sentence_without_numbers_spares_its_neighbours():
    decoder, sources = TinyDecoder(2), make_sources(2, [3, 3, 3])
    options = SearchOptions(beam_size=3, n_best=3, max_length=5)
    whole = run(decoder, sources, options)
    sources[1] = sources[1] * math.nan
    broken = run(decoder, sources, options)
    assert broken[1] == []
    assert_same(broken[0], whole[0], tolerance=1e-12)
    assert_same(broken[2], whole[2], tolerance=1e-12)


def test_fewer_than_n_best_where_there_are_no_more():
    options = SearchOptions(beam_size=9, n_best=9, max_length=1)
    [found] = run(TinyDecoder(4), make_sources(4, [3]), options, forbidden=[0, 2, 4])
    assert sorted(h.tokens for h in found) == [[], [3]]


@many
@given(problems(longest=9), st.integers(1, 4))
def test_counted_tokens_stand_as_often_as_asked(problem, beam_size):
    """Wherever there is room for them, and nothing else forbids them."""
    seed, sources, fields, limits = problem
    fields |= {"max_length": 9, "max_length_ratio": 0.0}
    limits |= {"forbidden": [], "prefixes": None}
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, **fields)
    results = run(TinyDecoder(seed), sources, options, **limits)
    for source, hypotheses, counts in zip(sources, results, limits["counts"], strict=True):
        # Where nothing may be repeated, too few tokens may be left for the least length.
        assert hypotheses or (options.no_repeat_ngram and options.shortest(len(source) - 1))
        for hypothesis in hypotheses:
            assert {token: hypothesis.tokens.count(token) for token in counts} == counts


def test_an_empty_batch():
    decoder = TinyDecoder(0)
    state = decoder.start(make_sources(0, [1]))
    none = torch.zeros(0, dtype=torch.long)
    assert search(decoder, state, none, SearchOptions(), bos=BOS, eos=EOS) == []


def test_arguments_that_do_not_fit():
    decoder, sources = TinyDecoder(0), make_sources(0, [1, 2])
    with pytest.raises(ValueError, match="1 prefixes for 2 sentences"):
        run(decoder, sources, SearchOptions(), prefixes=[[]])
    with pytest.raises(ValueError, match="1 counts for 2 sentences"):
        run(decoder, sources, SearchOptions(), counts=[{3: 1}])
    with pytest.raises(ValueError, match="the same for every sentence"):
        run(decoder, sources, SearchOptions(), counts=[{3: 1}, {2: 1}])
    with pytest.raises(ValueError, match="end of sentence"):
        run(decoder, sources, SearchOptions(), prefixes=[[], [EOS]])
    with pytest.raises(ValueError, match="end of sentence"):
        run(decoder, sources, SearchOptions(), forbidden=[EOS])
    with pytest.raises(MTError, match="513 tokens"):
        run(decoder, sources, SearchOptions(), prefixes=[[], [2] * 513])
    decoder.with_attention = False
    assert len(run(decoder, sources, SearchOptions())) == 2
    for beam_size in (1, 2):
        with pytest.raises(MTError, match="--coverage-penalty"):
            run(decoder, sources, SearchOptions(beam_size=beam_size, coverage_penalty=0.1))


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"beam_size": 0}, "--beam-size"),
        ({"n_best": 0}, "--n-best"),
        ({"n_best": 6}, "--n-best"),
        ({"coverage_penalty": -0.1}, "--coverage-penalty"),
        ({"coverage_penalty": math.nan}, "--coverage-penalty"),
        ({"no_repeat_ngram": -1}, "--no-repeat-ngram"),
        ({"min_length": -1}, "--min-length"),
        ({"min_length": 513}, "--min-length"),
        ({"min_length": 9, "max_length": 8}, "--min-length"),
        ({"min_length_ratio": -1.0}, "--min-length-ratio"),
        ({"min_length_ratio": 2.0, "max_length_ratio": 1.0}, "--min-length-ratio"),
        ({"max_length": -1}, "--max-length"),
        ({"max_length_ratio": math.inf}, "--max-length-ratio"),
        ({"length_penalty": 11.0}, "--length-penalty"),
        ({"length_penalty": math.nan}, "--length-penalty"),
        ({"normalization": "sum"}, "--normalization"),
    ],
)
def test_options_out_of_range_are_named(fields, flag):
    with pytest.raises(MTError) as caught:
        SearchOptions(**fields)
    assert str(caught.value).startswith(flag + " ")
    assert "\n" not in str(caught.value)


def test_lengths():
    assert [SearchOptions().longest(n) for n in (0, 7, 251, 252, 1024)] == [10, 24, 512, 512, 512]
    assert SearchOptions(max_length=600).longest(3) == 512
    assert SearchOptions(max_length=40).longest(3) == 40
    assert [SearchOptions(max_length_ratio=2.3).longest(n) for n in (0, 1, 10)] == [1, 2, 23]
    assert [SearchOptions(min_length_ratio=1.1).shortest(n) for n in (0, 1, 10)] == [0, 2, 11]
    assert SearchOptions(min_length=30).shortest(1) == 12  # the limit on the longest goes first
    assert SearchOptions(max_length=20, min_length_ratio=4.0).shortest(6) == 20


def test_normalisations():
    assert SearchOptions(length_penalty=0.0).normalizer(9) == 1.0
    assert SearchOptions().normalizer(9) == 9.0
    gnmt = SearchOptions(normalization="gnmt", length_penalty=0.6)
    assert gnmt.normalizer(1) == 1.0
    assert gnmt.normalizer(13) == pytest.approx(3.0**0.6)


def test_repeats_are_forbidden_beyond_the_prefix_only():
    """A prefix may repeat itself, and its n-grams are then not repeated after it."""
    for seed, n in itertools.product(range(6), (1, 2)):
        options = SearchOptions(
            beam_size=3, n_best=3, no_repeat_ngram=n, min_length=5, max_length=5
        )
        prefix = [2, 2, 2]
        [found] = run(TinyDecoder(seed), make_sources(seed, [3]), options, prefixes=[prefix])
        assert found
        for h in found:
            assert h.tokens[:3] == prefix
            grams = [tuple(h.tokens[i : i + n]) for i in range(len(h.tokens) - n + 1)]
            tail = grams[len(prefix) - n + 1 :]
            assert len(tail) == len(set(tail))
            assert not set(tail) & set(grams[: len(prefix) - n + 1])
