"""How a head's work is shared among routes, and a penalty on heads that work for more than one.

    work of a head on a batch     root mean square, over the places in front of wanted tokens, of how far what it writes is from its mean
    share[route, head]            its part of the work of all heads that are watched; the running mean over the batches of a route
    overlap on a batch            sum over heads of (share on the batch) * (sum of its running shares on the other routes)

Work is what a mean ablation takes away. Which head serves which route is left open. The first layer is not watched: what stood before
a token serves all.

What it does not do: say where a head should look, or what it should carry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Routes", "carried"]

MEMORY = 0.95


class Routes(nn.Module):
    """The running shares of a model's heads in its routes; its state is part of the training's checkpoint."""

    running: Tensor

    def __init__(self, model: Any, routes: int) -> None:
        super().__init__()
        heads, layers = model.config.n_head, model.config.n_layer - 1
        self.register_buffer("running", torch.full((routes, layers, heads), 1 / (layers * heads)))

    def overlap(self, model: Any, z: list[Tensor], told: Tensor, route: int) -> Tensor:
        """The overlap on a batch of a route; the running share is brought up to date. `told` [row, pos] are the places that count."""
        work: list[Tensor] = []
        for block, carried in zip(model.transformer.h[1:], z, strict=True):
            heads = self.running.shape[2]
            written = torch.einsum(
                "nhd,hdw->nhw", carried[told].unflatten(1, (heads, -1)), block.attn.c_proj.weight.unflatten(0, (heads, -1))
            )
            work.append(((written - written.mean(0)).pow(2).sum(-1).mean(0) + 1e-8).sqrt())
        share = torch.stack(work) / torch.stack(work).sum()
        others = (self.running.sum(0) - self.running[route]).clone()
        with torch.no_grad():
            self.running[route].lerp_(share.detach(), 1 - MEMORY)
        return (share * others).sum()


@contextmanager
def carried(model: Any) -> Iterator[list[Tensor]]:
    """While it is open, what every layer but the first hands to its output matrix: [row, pos, width] of all heads side by side."""
    found: list[Tensor] = []
    hooks = [
        block.attn.c_proj.register_forward_pre_hook(lambda _module, given: found.append(given[0]))
        for block in model.transformer.h[1:]
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
