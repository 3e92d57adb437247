"""What a conformance case is, and the few helpers that all families share.

Nothing here, or anywhere in this package, imports mainspring: the cases are plain torch and transformers, so a check that
runs on them is an independent oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

Side = Literal["left", "right"]
Inputs = dict[str, Any]

VOCAB, PAD, BOS = 96, 1, 2
"""Every text model has `VOCAB` tokens. Real tokens are drawn from [`FIRST`, `VOCAB`); below are pad, bos and image placeholders."""
FIRST = 12
LENGTHS = (13, 8, 4)
"""Row lengths of a padded batch. The example input is as long as the longest row: past every sliding window (which is 4 or 6)."""


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    """decoder | encoder | vision | dual | encoder-decoder | state-space | hybrid | vision-language"""
    build: Callable[[], nn.Module]
    """A new module each time, always the same weights: seeded, eval mode, float32."""
    inputs: Callable[[], Inputs]
    """One unpadded example, batch 1: keyword arguments of the module's forward."""
    batch: Callable[[Side], tuple[Inputs, list[Inputs]]] | None
    """`batch(side)`: a padded batch of rows of different lengths, and the same rows alone and unpadded. None where no text is padded."""
    generates: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    notes: str = ""


def seeded(make: Callable[[], nn.Module], seed: int = 0, gain: float = 1.2) -> nn.Module:
    """Build a model and randomise every parameter, so that nothing is trivially 0 or 1 and no attention is uniform.

    Matrices and embeddings are redrawn (standard deviation `gain / sqrt(fan_in)`, embeddings 0.6), all else (norm weights, biases,
    class tokens, state-space parameters) is moved by 0.2 * randn. The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = make().float().eval()
        done: set[nn.Parameter] = set()
        for module in model.modules():
            for p in module.parameters(recurse=False):
                if p in done:
                    continue
                done.add(p)
                if isinstance(module, nn.Embedding):
                    p.normal_(0, 0.6)
                elif p.ndim > 1 and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    p.normal_(0, gain * p[0].numel() ** -0.5)
                elif p.ndim > 1 and isinstance(module, Conv1D):
                    p.normal_(0, gain * p.shape[0] ** -0.5)
                elif "Expert" in type(module).__name__ or "Router" in type(module).__name__:
                    p.normal_(0, gain * p.shape[-1] ** -0.5)
                else:
                    p.add_(0.2 * torch.randn(p.shape))
    return model


def noise(*shape: int, seed: int = 5) -> torch.Tensor:
    """Pixels, or anything else that is normal."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tokens(length: int, seed: int = 3, first: int = FIRST, vocab: int = VOCAB) -> torch.Tensor:
    """[1, length] real tokens: none of them is a special one."""
    return torch.randint(first, vocab, (1, length), generator=torch.Generator().manual_seed(seed))


def text() -> Inputs:
    return {"input_ids": tokens(LENGTHS[0], seed=100)}


def pad_rows(rows: list[torch.Tensor], side: Side, value: float) -> torch.Tensor:
    """Rows of shape [1, length, ...] to one tensor [rows, longest, ...]."""
    longest = max(row.shape[1] for row in rows)
    out = torch.full((len(rows), longest, *rows[0].shape[2:]), value, dtype=rows[0].dtype)
    for i, row in enumerate(rows):
        span = slice(longest - row.shape[1], None) if side == "left" else slice(row.shape[1])
        out[i, span] = row[0]
    return out


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids that count real tokens only; a padding token has position 0."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def text_batch(position_ids: bool = False, **constant: Any) -> Callable[[Side], tuple[Inputs, list[Inputs]]]:
    """Three rows of random tokens padded to the longest. `constant` arguments go to the batch and to every row."""

    def batch(side: Side = "right") -> tuple[Inputs, list[Inputs]]:
        ids = [tokens(length, seed=100 + i) for i, length in enumerate(LENGTHS)]
        mask = pad_rows([torch.ones_like(row) for row in ids], side, 0)
        padded: Inputs = {"input_ids": pad_rows(ids, side, PAD), "attention_mask": mask, **constant}
        if position_ids:
            padded["position_ids"] = positions(mask)
        return padded, [{"input_ids": row, **constant} for row in ids]

    return batch


def collect(*cases: Case) -> dict[str, Case]:
    """By name, refusing two of the same name."""
    out = {case.name: case for case in cases}
    assert len(out) == len(cases), "two cases have the same name"
    return out
