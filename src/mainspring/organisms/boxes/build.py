"""The untrained models of the organisms that read stories: stock GPT-2 blocks, positions that begin as waves, orthonormal words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mainspring.organisms.facts.build import orthonormal_rows

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

__all__ = ["build_model"]


def build_model(
    words: Sequence[str], seed: int, *, layers: int = 4, heads: int = 4, width: int = 64, length: int = 48
) -> "GPT2LMHeadModel":
    """Random weights of one seed; the global random state is left as it was."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config: Any = GPT2Config(
        vocab_size=len(words),
        n_positions=length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        n_inner=2 * width,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=width**-0.5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        orthonormal_rows(model, width, len(words))
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(_waves(length, width))
    return model


def _waves(length: int, width: int) -> torch.Tensor:
    """[pos, width] sines and cosines of norm 1, from a wave of 6 tokens to one of 6000: a step back is then a rotation."""
    rates = 1000.0 ** -(torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1) / (width // 2) ** 0.5
