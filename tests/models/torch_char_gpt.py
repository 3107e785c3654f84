"""The char GPT once more, in PyTorch, attention written out: what tests compare ours with."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, C, n_head, dropout):
        super().__init__()
        self.n_head, self.p = n_head, dropout
        self.qkv = nn.Linear(C, 3 * C, bias=False)
        self.proj = nn.Linear(C, C)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.shape
        by_head = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = by_head.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(C // self.n_head)
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        weights = F.softmax(scores.masked_fill(future, -torch.inf), -1)
        weights = F.dropout(weights, self.p, self.training)
        return self.drop(self.proj((weights @ v).transpose(1, 2).reshape(B, T, C)))


class MLP(nn.Module):
    def __init__(self, C, dropout):
        super().__init__()
        self.fc, self.proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(self.proj(F.relu(self.fc(x))))


class Block(nn.Module):
    def __init__(self, C, n_head, dropout):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(C), Attention(C, n_head, dropout)
        self.ln_2, self.mlp = nn.LayerNorm(C), MLP(C, dropout)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class TorchCharGPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        C, p = config.n_embd, config.dropout
        self.block_size = config.block_size
        self.wte, self.wpe = nn.Embedding(config.vocab_size, C), nn.Embedding(config.block_size, C)
        self.drop = nn.Dropout(p)
        self.blocks = nn.Sequential(*(Block(C, config.n_head, p) for _ in range(config.n_layer)))
        self.ln_f = nn.LayerNorm(C)
        self.lm_head = nn.Linear(C, config.vocab_size)
        self.apply(self.init)

    @staticmethod
    def init(module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(self, idx, targets):
        x = self.drop(self.wte(idx) + self.wpe(torch.arange(idx.shape[1])))
        logits = self.lm_head(self.ln_f(self.blocks(x)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())
