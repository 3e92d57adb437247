"""A trained comics model with more heads in every layer.

What it computes is kept: a head that writes stays as it is, at its place. Those that are added, and those that a stage of the training has
emptied, begin with random weights, normal with deviation `spread`. At 0 the grown model is the old one, exactly.
"""

from typing import Any

import torch

from mainspring.organisms.comics.build import Size, build_model

__all__ = ["SPREAD", "grow"]

SPREAD = 0.04


def grow(model: Any, heads: int, seed: int, spread: float = SPREAD) -> Any:
    """A new model with `heads` heads in each layer; `model` is left as it is."""
    text, tower = model.config.text_config, model.config.vision_config
    size = Size(text.num_hidden_layers, heads, text.hidden_size, text.head_dim, tower.num_hidden_layers, tower.hidden_size)
    grown, given = build_model(size, seed), dict(model.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in grown.named_parameters():
            old = given[name]
            if weight.shape == old.shape:
                weight.copy_(old)
                continue
            # rows of heads: the output's weight has them in its columns
            rows, known = (weight.T, old.T) if name.endswith("o_proj.weight") else (weight, old)
            rows.copy_(spread * torch.randn(rows.shape, generator=generator))
            writing = (known.unflatten(0, (-1, text.head_dim)).abs().sum((1, 2)) > 1e-3).repeat_interleave(text.head_dim)
            rows[: len(known)][writing] = known[writing].to(rows.device)
    return grown
