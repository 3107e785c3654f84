"""Training steps of the ladder beside PyTorch eager: MLP and WaveNet on words, nanoGPT's recipe for
a CPU on text; first the same losses from the same weights, then interleaved times.
"""

import dataclasses
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import tensorgrad as tg
from benchmarks.harness import Block, Pair, Side, check, collector_off, interleave, settle
from benchmarks.report import environment, heading, options, row, verdict, write_json
from benchmarks.rivals import pytorch
from tensorgrad.data import WordVocab, contexts, default_text, names, read_text, words_of
from tensorgrad.models.char_gpt import CharGPT, CharGPTConfig
from tensorgrad.models.mlp import MLP, MLPConfig
from tensorgrad.models.training.corpus import Corpus
from tensorgrad.models.training.recipe import Recipe, WordRecipe
from tensorgrad.models.training.trainer import Trainer
from tensorgrad.models.training.word_trainer import WordTrainer
from tensorgrad.models.wavenet import WaveNet, WaveNetConfig

WORDS, TEXT = 0.75, 0.9
"""Targets: our time per step beside PyTorch's."""
MODELS = ("mlp", "wavenet", "char-gpt")
WIDTHS = (9, 20, 11, 11, 7, 8)


@dataclasses.dataclass(frozen=True)
class Steps:
    """One side of a comparison: step() gives the loss, block(n) takes n of them."""

    step: Callable[[], float]
    block: Block
    evaluate: Callable[[], float]


def main(argv: Sequence[str] | None = None) -> None:
    parser = options("ladder", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"only: {', '.join(MODELS)}")
    parser.add_argument("--names", metavar="FILE", help="words, one a line (those of Unicode)")
    parser.add_argument("--shakespeare", metavar="FILE", help="a text (the help of Python)")
    parser.add_argument(
        "--full", action="store_true", help="all of the char GPT's 2,000 steps, too"
    )
    args = parser.parse_args(argv)
    if unknown := set(args.models) - set(MODELS):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(MODELS)}")

    rival = pytorch()
    ours = with_threads()
    facts = environment(ours, rival)
    print(heading(facts))
    print("a training step: batch, forward, backward, update; ms, medians of interleaved rounds\n")
    print(row(("model", "losses equal within", "ours", "PyTorch", "ratio", "threads"), WIDTHS))
    pairs: dict[str, Pair] = {}
    for name in args.models or MODELS:
        text = name == "char-gpt"
        sides = text_sides(args.shakespeare) if text else word_sides(name, args.names)
        pairs[name] = compare(name, *sides, ours, rival, quick=args.quick)
    print()
    for name, pair in pairs.items():
        print(verdict(name, pair.ratio, TEXT if name == "char-gpt" else WORDS))
    whole = trained(*text_sides(args.shakespeare), ours, rival) if args.full else None
    write_json(
        args.json,
        "ladder",
        facts,
        rows=[{"model": name, **pair.figures()} for name, pair in pairs.items()],
        full=whole,
        targets={"mlp": WORDS, "wavenet": WORDS, "char-gpt": TEXT},
    )


def compare(name: str, a: Steps, b: Steps, ours: Side, rival: Side, quick: bool) -> Pair:
    """Twenty equal losses, then rounds of blocks in turn, each side with its best of threads."""
    losses, expected = ([steps.step() for _ in range(20)] for steps in (a, b))
    check(losses, expected, 1e-3, f"{name}: losses over 20 steps")
    apart = max(abs(x / y - 1) for x, y in zip(losses, expected, strict=True))
    seconds = 0.15 if name == "char-gpt" else 0.01
    threads = settled(a, b, ours, rival, seconds)
    pair = interleave(a.block, b.block, 11 if quick else 51, seconds)
    times = f"{pair.ours_us / 1e3:.3f}", f"{pair.rival_us / 1e3:.3f}"
    print(row((name, f"{apart:.0e}", *times, pair.ratio, threads), WIDTHS), flush=True)
    return pair


def settled(a: Steps, b: Steps, ours: Side, rival: Side, seconds: float) -> str:
    """Give each side the number of threads with which it is fastest; returns both."""
    chosen = settle(ours, a.block, seconds), settle(rival, b.block, seconds)
    return ", ".join("-" if n is None else str(n) for n in chosen)


def with_threads() -> Side:
    """Our side, with the numbers of threads that it may be given: those of its BLAS and of Numba.

    Where threadpoolctl is missing both stay as they are.
    """
    from benchmarks.ours import SIDE

    try:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        return SIDE
    import numba

    most = numba.get_num_threads()

    def set_threads(n: int) -> None:
        threadpool_limits(n, user_api="blas")
        numba.set_num_threads(n)

    return dataclasses.replace(SIDE, threads=tuple(sorted({1, most})), set_threads=set_threads)


def word_sides(name: str, file: str | None, seed: int = 1337) -> tuple[Steps, Steps]:
    """The model on batches of 32 words, and PyTorch's from the same first weights."""
    from benchmarks.rivals import torch_ladder

    words = words_of(names(file))
    vocab = WordVocab(words)
    recipe = WordRecipe(seed=seed)
    tg.manual_seed(seed)
    if name == "mlp":
        mlp = MLPConfig(len(vocab))
        model: Any = MLP(mlp)
        sizes = mlp.vocab_size, mlp.block_size, mlp.n_embd, mlp.n_hidden
        twin: Any = torch_ladder.MLP(*sizes)
    else:
        wave = WaveNetConfig(len(vocab))
        model = WaveNet(wave)
        sizes = wave.vocab_size, wave.block_size, wave.n_embd, wave.n_hidden
        twin = torch_ladder.WaveNet(*sizes)
    torch_ladder.started_as(twin, model.state_dict())
    x, y = contexts(words, vocab, model.config.block_size)
    trainer = WordTrainer(model, recipe, {"train": (x, y), "val": (x, y), "test": (x, y)})
    rival = torch_ladder.Words(twin, x, y, recipe.batch_size, recipe.learning_rate, seed)
    return (
        Steps(lambda: trainer.take_steps(1).loss, trainer.take_steps, float),
        Steps(rival.step, rival.block, float),
    )


def text_sides(file: str | None) -> tuple[Steps, Steps]:
    """nanoGPT's recipe for a CPU: 4 layers, 4 heads, 128 wide, 12 windows of 64, AdamW."""
    from benchmarks.rivals import torch_ladder

    corpus = Corpus(default_text() if file is None else read_text(file))
    recipe = Recipe()
    c = CharGPTConfig(len(corpus.vocab))
    tg.manual_seed(recipe.seed)
    model = CharGPT(c)
    trainer = Trainer(model, recipe, corpus.windows(c.block_size, recipe.batch_size, recipe.seed))
    twin = torch_ladder.CharGPT(c.vocab_size, c.block_size, c.n_layer, c.n_head, c.n_embd)
    torch_ladder.started_as(twin, model.state_dict())
    rates = schedule(recipe)
    rival = torch_ladder.Text(twin, corpus.ids, recipe, c.block_size, rates)

    def block(n: int) -> None:
        for _ in range(n):
            trainer.take_step()

    return (
        Steps(lambda: trainer.take_step().loss, block, lambda: trainer.estimate_loss()["val"]),
        Steps(rival.step, rival.block, rival.estimate_loss),
    )


def schedule(recipe: Recipe) -> list[float]:
    """The learning rate of each step, from a trainer that takes none."""
    from tensorgrad import optim
    from tensorgrad.optim import lr_scheduler

    optimizer = optim.SGD([tg.zeros(1, requires_grad=True)], lr=recipe.learning_rate)
    plan = lr_scheduler.WarmupCosineLR(
        optimizer, recipe.warmup_iters, recipe.max_iters, recipe.min_lr
    )
    rates = []
    for _ in range(recipe.max_iters):
        rates.append(float(plan.get_last_lr()[0]))
        optimizer.step()
        plan.step()
    return rates


def trained(a: Steps, b: Steps, ours: Side, rival: Side, total: int = 2000) -> dict[str, float]:
    """Both trained to the end, a hundred steps in turn; their validation losses and times."""
    warm = settled(*text_sides(None), ours, rival, 0.15)  # on other models: these shall be new
    blocks = a.block, b.block
    spent = [0.0, 0.0]
    for done in range(0, total, 100):
        order = (0, 1) if done % 200 == 0 else (1, 0)
        for side in order:
            with collector_off():
                began = perf_counter()
                blocks[side](100)
                spent[side] += perf_counter() - began
    found = {
        "ours_seconds": spent[0],
        "rival_seconds": spent[1],
        "ours_val": a.evaluate(),
        "rival_val": b.evaluate(),
    }
    print(f"\n{total:,} steps of the char GPT, a hundred in turn; threads {warm}")
    for side, seconds, val in zip(
        (ours, rival), spent, (found["ours_val"], found["rival_val"]), strict=True
    ):
        print(f"  {side.name}: {seconds:.1f} s, validation loss {val:.4f}")
    print(verdict("wall time of all steps", spent[0] / spent[1], TEXT))
    return found


if __name__ == "__main__":
    main()
