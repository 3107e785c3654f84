"""MiniGPT once more, in PyTorch, attention written out: what tests compare ours with."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, C, n_head, dropout):
        super().__init__()
        self.n_head, self.p = n_head, dropout
        self.c_attn, self.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.shape
        by_head = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = by_head.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(C // self.n_head)
        scores = scores.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
        weights = F.dropout(F.softmax(scores, -1), self.p, self.training)
        return self.drop(self.c_proj((weights @ v).transpose(1, 2).reshape(B, T, C)))


class MLP(nn.Module):
    def __init__(self, C, dropout, activation):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.drop, self.activation = nn.Dropout(dropout), activation

    def forward(self, x):
        return self.drop(self.c_proj(self.activation(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self, C, n_head, dropout, activation, post_norm):
        super().__init__()
        self.post_norm = post_norm
        self.ln_1, self.attn = nn.LayerNorm(C), Attention(C, n_head, dropout)
        self.ln_2, self.mlp = nn.LayerNorm(C), MLP(C, dropout, activation)

    def forward(self, x):
        if self.post_norm:
            x = self.ln_1(x + self.attn(x))
            return self.ln_2(x + self.mlp(x))
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TorchMiniGPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        activation = {
            "gelu": F.gelu,
            "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
            "relu": F.relu,
        }[c.activation]
        self.wte, self.wpe = (
            nn.Embedding(c.vocab_size, c.n_embd),
            nn.Embedding(c.block_size, c.n_embd),
        )
        self.drop = nn.Dropout(c.dropout)
        parts = c.n_embd, c.n_head, c.dropout, activation, c.post_norm
        self.blocks = nn.ModuleList(Block(*parts) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.n_embd)
        self.lm_head = nn.Linear(c.n_embd, c.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.n_layer))
            elif p.dim() == 2:
                nn.init.normal_(p, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, idx, targets):
        x = self.drop(self.wte(idx) + self.wpe(torch.arange(idx.shape[1])))
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
