"""One model examined part by part, each claim with its number: sizes, shapes, tying, cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

import tensorgrad as tg
from tensorgrad import Tensor
from tensorgrad.models import variants
from tensorgrad.models.gpt2 import SIZES, GPT2Config, GPT2LMHeadModel
from tensorgrad.models.layers import undrawn
from tensorgrad.models.modes import evaluating
from tensorgrad.models.published import PARAMETERS
from tensorgrad.models.training.ladder import JOBS
from tensorgrad.models.verify import full_size

FACTORIES: dict[str, Callable[[], GPT2LMHeadModel]] = {
    "gpt2": variants.create_gpt2_small,
    "gpt2-medium": variants.create_gpt2_medium,
    "gpt2-large": variants.create_gpt2_large,
    "gpt2-xl": variants.create_gpt2_xl,
}
MODELS = tuple(dict.fromkeys((*JOBS, *SIZES)))
"""What `tensorgrad verify --model` takes."""


@dataclass(frozen=True)
class Check:
    """A claim, the numbers that bear it out or not, and whether they do."""

    claim: str
    found: str
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.claim}: {self.found}"


@dataclass(frozen=True)
class Subject:
    """A model to examine: the full one for its numbers of parameters, a small one for the rest."""

    name: str
    small: Any
    count: int
    predicts: int
    """positions of the input that the logits speak of: all of a text, one of a word"""

    @property
    def config(self) -> Any:
        return self.small.config

    @property
    def B(self) -> int:
        """Rows of a batch: enough for some hundred predictions or, of a text, some dozen."""
        return 2 if self.predicts > 1 else 64

    @property
    def T(self) -> int:
        return int(getattr(self.config, "block_size", 0) or self.config.n_positions)


def check_model(name: str) -> Iterator[Check]:
    """Every check that means something for the model; ValueError for a name that is none."""
    subject = gpt2(name) if name in SIZES else of_the_ladder(name)
    yield from check_config(subject)
    yield from check_count(subject)
    yield from check_forward(subject)
    yield from check_gradients(subject)
    yield from check_tying(subject)
    yield from check_state(subject)
    if subject.predicts > 1:
        yield from check_causality(subject)
        yield from check_length(subject)
        yield from check_generation(subject)
    if name in SIZES:
        yield from check_cache(subject)
        yield from check_factories()


def of_the_ladder(name: str) -> Subject:
    if name not in JOBS:
        raise ValueError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    tg.manual_seed(1337)
    model = full_size(JOBS[name])
    count = sum(p.numel() for p in model.parameters())
    text = name.endswith("gpt")
    if text:  # its blocks are alike, and two tell what six do
        sizes = {"n_layer": 2, "n_head": 3, "n_embd": 48, "block_size": 16, "dropout": 0.0}
        model = JOBS[name].model(replace(model.config, **sizes))
    return Subject(name, model, count, model.config.block_size if text else 1)


def gpt2(name: str) -> Subject:
    tg.manual_seed(1337)
    with undrawn():  # memory that nobody touches costs nothing
        count = sum(p.numel() for p in GPT2LMHeadModel(GPT2Config(**SIZES[name])).parameters())
    config = GPT2Config(
        vocab_size=97, n_positions=16, n_layer=2, n_head=3, n_embd=48,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return Subject(name, GPT2LMHeadModel(config), count, 16)


# ---- checks


def check_config(s: Subject) -> Iterator[Check]:
    """Settings survive a dictionary; one that is mistyped is refused with the nearest name."""
    kept = s.config.to_dict()
    same = type(s.config).from_dict(kept) == s.config
    yield Check("settings", f"{len(kept)} of {len(fields(s.config))} saved and read back", same)
    typo = list(kept)[-1][:-1] + "_x"
    said = refused(lambda: type(s.config).from_dict({**kept, typo: 1}))
    yield Check("a setting that does not exist is refused", said or "it was not", bool(said))


def check_count(s: Subject) -> Iterator[Check]:
    if s.name in PARAMETERS:
        figure = PARAMETERS[s.name]
        found = f"{s.count:,}, published {int(figure.value):,}"
        yield Check("parameters", found, figure.met_by(s.count))
    else:
        yield Check("parameters", f"{s.count:,}", True)


def check_forward(s: Subject) -> Iterator[Check]:
    """The logits' shape, and a loss near ln V before anything is learnt."""
    V = s.config.vocab_size
    s.small.train()  # a BatchNorm has nothing yet to evaluate with
    with tg.no_grad():
        logits, loss = s.small(*batch(s))
    shape = (s.B, s.T, V) if s.predicts > 1 else (s.B, V)
    found = f"{tuple(logits.shape)} for {s.B} rows of {s.T}"
    yield Check("logits", found, tuple(logits.shape) == shape)
    if s.name == "neural-bigram":  # its first weights are N(0, 1), as the lecture draws them
        yield Check("first loss", f"{loss.item():.4f}", math.isfinite(loss.item()))
    else:
        near = abs(loss.item() / math.log(V) - 1) < 0.05
        yield Check("first loss", f"{loss.item():.4f}, ln {V} = {math.log(V):.4f}", near)


def check_gradients(s: Subject) -> Iterator[Check]:
    """Every parameter has a share in the loss."""
    named = dict(s.small.named_parameters())
    if not named:
        return
    s.small.zero_grad()
    answered(s)[1].backward()
    still = [n for n, p in named.items() if p.grad is None or not np.isfinite(p.grad.numpy()).all()]
    s.small.zero_grad()
    found = f"of {len(named) - len(still)} of {len(named)} parameters finite" + (
        f", not of {still[0]}" if still else ""
    )
    yield Check("gradients", found, not still)


def check_tying(s: Subject) -> Iterator[Check]:
    """One tensor under two names, where the head is the embedding; counted once."""
    head = getattr(s.small, "lm_head", None)
    wte = getattr(getattr(s.small, "transformer", s.small), "wte", None)
    if head is None or wte is None:
        return
    tied = head.weight is wte.weight
    wanted = s.name != "char-gpt"  # whose head has weights of its own, as the lecture's
    names = sum(t is wte.weight for t in s.small.parameters())
    found = (
        f"head and embedding {'share' if tied else 'do not share'} weights, counted {names} time"
    )
    yield Check("tying", found, tied == wanted and names == 1)


def check_state(s: Subject) -> Iterator[Check]:
    """A new model with the old one's state says the same, to the last bit."""
    twin = type(s.small)(s.config)
    twin.load_state_dict(s.small.state_dict())
    with tg.no_grad():
        apart = distance(answered(s)[0], answered(replace(s, small=twin))[0])
    yield Check("a copy by state_dict", f"logits apart {apart:.0e}", apart == 0)


def check_causality(s: Subject) -> Iterator[Check]:
    """What comes later changes nothing before, and something from there on."""
    idx, at = ids(s), s.T // 2
    other = idx.clone()
    other[:, at:] = (other[:, at:] + 1) % s.config.vocab_size
    a, b = (logits_of(s, i) for i in (idx, other))
    before, after = distance(a[:, :at], b[:, :at]), distance(a[:, at:], b[:, at:])
    found = f"before a change logits move by {before:.0e}, after it by {after:.0e}"
    yield Check("the past does not see the future", found, before == 0 and after > 0)


def check_length(s: Subject) -> Iterator[Check]:
    said = refused(lambda: s.small(tg.zeros(1, s.T + 1, dtype=tg.int64)))
    yield Check(f"{s.T + 1} tokens are refused", said or "they were not", bool(said))


def check_generation(s: Subject) -> Iterator[Check]:
    """Greedy text is the argmax of one forward after the other; modes are left alone."""
    start, n = ids(s)[:, :3], 7
    s.small.train()
    out = s.small.generate(start, max_new_tokens=n, temperature=0.0)
    row = start
    for _ in range(n):
        row = tg.cat([row, logits_of(s, row)[:, -1].argmax(-1, keepdim=True)], dim=1)
    same = bool((out == row).all().item())
    found = f"{n} greedy tokens {'equal' if same else 'differ from'} those of single forwards"
    yield Check("generation", found, same and s.small.training)


def check_cache(s: Subject) -> Iterator[Check]:
    """Tokens one by one through a cache say what they say all at once; positions go on."""
    idx = ids(s)
    with evaluating(s.small), tg.no_grad():
        whole = s.small(idx).logits
        out = s.small(idx[:, :5], use_cache=True)
        parts, cache = [out.logits], out.past_key_values
        for t in range(5, s.T):
            parts.append(s.small(idx[:, t : t + 1], past_key_values=cache, use_cache=True).logits)
    apart = distance(tg.cat(parts, dim=1), whole)
    found = f"5 tokens, then {s.T - 5} one by one: logits apart {apart:.0e}"
    yield Check("cache", found, apart < 1e-4)


def check_factories() -> Iterator[Check]:
    """Each size by its function, counted without the memory for it."""
    for size, make in FACTORIES.items():
        with undrawn():
            model = make()
        count, figure = sum(p.numel() for p in model.parameters()), PARAMETERS[size]
        found = f"{count:,}, published {int(figure.value):,}"
        yield Check(f"{make.__name__}()", found, figure.met_by(count))


# ---- parts


def ids(s: Subject, seed: int = 7) -> Tensor:
    draws = np.random.default_rng(seed)
    return tg.tensor(draws.integers(0, s.config.vocab_size, (s.B, s.T)))


def batch(s: Subject) -> tuple[Tensor, Tensor]:
    """Random tokens, and what is to follow: each token of a text, the next one of a word."""
    return ids(s), ids(s, 8) if s.predicts > 1 else ids(s, 8)[:, 0]


def answered(s: Subject) -> tuple[Tensor, Tensor]:
    """Logits and loss in evaluation mode."""
    with evaluating(s.small):
        logits, loss = s.small(*batch(s))
    return logits, loss


def logits_of(s: Subject, idx: Tensor) -> Tensor:
    with evaluating(s.small), tg.no_grad():
        out = s.small(idx)
    logits: Tensor = out[0] if isinstance(out, tuple) else out.logits
    return logits


def distance(a: Tensor, b: Tensor) -> float:
    return float((a.detach() - b.detach()).abs().max().item())


def refused(act: Callable[[], object]) -> str:
    """The sentence of the error, or nothing where there is none."""
    try:
        act()
    except (ValueError, TypeError) as error:
        return str(error)
    return ""
