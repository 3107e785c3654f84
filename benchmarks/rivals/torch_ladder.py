"""Models of the ladder in PyTorch eager, each with the training step that its users write."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Three embedded characters, one layer of tanh.  Bengio et al. 2003."""

    def __init__(self, V: int, T: int, C: int, H: int) -> None:
        super().__init__()
        self.wte, self.fc, self.head = nn.Embedding(V, C), nn.Linear(T * C, H), nn.Linear(H, V)

    def forward(self, x: Tensor) -> Tensor:  # (B, T) -> (B, V)
        return self.head(torch.tanh(self.fc(self.wte(x).flatten(1))))  # type: ignore[no-any-return]


class Join(nn.Module):
    """tanh(norm(fc(two neighbours end to end)))"""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.fc, self.bn = nn.Linear(2 * n_in, n_out, bias=False), nn.BatchNorm1d(n_out)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T / 2, H)
        B, T, C = x.shape
        x = self.fc(x.view(B, T // 2, 2 * C))
        x = self.bn(x.view(-1, x.shape[-1])).view(x.shape)  # over batch and positions
        return torch.tanh(x)


class WaveNet(nn.Module):
    """Eight characters joined two by two, three times.  van den Oord et al. 2016."""

    def __init__(self, V: int, T: int, C: int, H: int) -> None:
        super().__init__()
        depth = T.bit_length() - 1
        self.wte, self.head = nn.Embedding(V, C), nn.Linear(H, V)
        self.joins = nn.Sequential(*(Join(H if i else C, H) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:  # (B, T) -> (B, V)
        return self.head(self.joins(self.wte(x)).flatten(1))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """softmax(q kT / sqrt(D)) v in each head, causal, by PyTorch's fused kernel."""

    def __init__(self, C: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv, self.proj = nn.Linear(C, 3 * C, bias=False), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = (
            a.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
            for a in self.qkv(x).split(C, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).contiguous().view(B, T, C))  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """proj(relu(fc(x)))"""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.fc, self.proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(F.relu(self.fc(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x))"""

    def __init__(self, C: int, n_head: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(C), Attention(C, n_head)
        self.ln_2, self.mlp = nn.LayerNorm(C), FeedForward(C)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class CharGPT(nn.Module):
    """The char GPT: no dropout, so none is asked for."""

    def __init__(self, V: int, T: int, n_layer: int, n_head: int, C: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        self.blocks = nn.Sequential(*(Block(C, n_head) for _ in range(n_layer)))
        self.ln_f, self.lm_head = nn.LayerNorm(C), nn.Linear(C, V)

    def forward(self, x: Tensor) -> Tensor:  # (B, T) -> (B, T, V)
        x = self.wte(x) + self.wpe(torch.arange(x.shape[1]))
        return self.lm_head(self.ln_f(self.blocks(x)))  # type: ignore[no-any-return]


def started_as(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Take over the first weights of the other side, which names them alike."""
    arrays = {name: torch.from_numpy(np.array(tensor)) for name, tensor in state.items()}
    model.load_state_dict(arrays)


class Words:
    """Gradient descent on batches of words, as makemore's lectures write it.

    In place, without a temporary for the product with the rate.
    """

    def __init__(self, model: nn.Module, x: Any, y: Any, batch_size: int, lr: float, seed: int):
        self.model, self.lr, self.batch_size = model, lr, batch_size
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)
        self.parameters = list(model.parameters())
        self.generator = torch.Generator().manual_seed(seed)

    def step(self) -> float:
        at = torch.randint(0, len(self.x), (self.batch_size,), generator=self.generator)
        loss = F.cross_entropy(self.model(self.x[at]), self.y[at])
        for p in self.parameters:
            p.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in self.parameters:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-self.lr)
        return loss.item()

    def block(self, n: int) -> None:
        for _ in range(n):
            self.step()


class Text:
    """AdamW on windows of text, as nanoGPT writes it, with the fused optimiser.

    rates[i] is the learning rate of step i.
    """

    def __init__(
        self, model: CharGPT, ids: Mapping[str, Any], recipe: Any, block_size: int, rates: Any
    ) -> None:
        self.model, self.recipe, self.T, self.rates = model, recipe, block_size, rates
        self.ids = {split: torch.from_numpy(np.asarray(row)) for split, row in ids.items()}
        self.generator = torch.Generator().manual_seed(recipe.seed)
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), fused=True,
        )  # fmt: skip
        self.taken = 0

    def batch(self, split: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        ids, B = self.ids[split], self.recipe.batch_size
        starts = torch.randint(0, len(ids) - self.T, (B,), generator=generator)
        windows = ids[starts[:, None] + torch.arange(self.T + 1)]
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x).flatten(0, 1), y.flatten())

    def step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rates[min(self.taken, len(self.rates) - 1)]
        loss = self.loss(*self.batch("train", self.generator))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        self.optimizer.step()
        self.taken += 1
        return loss.item()

    def block(self, n: int) -> None:
        for _ in range(n):
            self.step()

    @torch.no_grad()
    def estimate_loss(self) -> float:
        """The validation loss of eval_iters batches."""
        self.model.eval()
        generator = torch.Generator().manual_seed(self.recipe.seed + 1)
        n = self.recipe.eval_iters
        losses = [self.loss(*self.batch("val", generator)).item() for _ in range(n)]
        self.model.train()
        return sum(losses) / n
