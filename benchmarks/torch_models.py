"""The same architectures in PyTorch, as its users write them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Gpt(nn.Module):
    """GPT-2's architecture without biases, tied, as nanoGPT trains it on a CPU."""

    def __init__(
        self, vocabulary: int, context: int, layers: int, heads: int, width: int
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_GptBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                ends_branch = name.endswith(("out.weight", "down.weight"))
                scale = (2 * layers) ** -0.5 if ends_branch else 1.0
                nn.init.normal_(weight, std=0.02 * scale)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.token(ids) + self.position.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.token.weight.T


class _GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norms[0](x)).view(batch, length, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        heads = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True
        )
        x = x + self.out(heads.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Recurrent(nn.Module):
    """A stacked `nn.LSTM` or `nn.GRU` with tied embeddings."""

    def __init__(self, cell: str, vocabulary: int, layers: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.recurrent = kind(width, width, layers, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.recurrent(self.token(ids))
        return outputs @ self.token.weight.T


class GatedConv(nn.Module):
    """Causal convolutions with gated linear units and residuals, tied embeddings."""

    def __init__(self, vocabulary: int, layers: int, width: int, kernel: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(layers + 1))
        self.convs = nn.ModuleList(
            nn.Conv1d(width, 2 * width, kernel) for _ in range(layers)
        )
        self.padding = kernel - 1

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.token(ids)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            inputs = functional.pad(norm(x).transpose(1, 2), (self.padding, 0))
            x = x + functional.glu(conv(inputs), dim=1).transpose(1, 2)
        return self.norms[-1](x) @ self.token.weight.T
