"""Plain torch hooks with cells as rows of a batch, by somebody who knows his tools.

One hook for each layer writes that layer's cells into their own rows; logits are asked for at the last position only; the number of
cells in a batch is the best of a few. What it does not do: skip layers or tokens, which takes another forward pass than the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch

from contenders.plain_hooks import hooked
from recipes.base import Job, Recipe, tuned
from recipes.edges_by_hand import Changes, base_metric, patch_edges
from recipes.plain_loop import clean_values, head_cells, resid_cells
from sweep_cases import Case, edges_of, head_edges_of, metric

SIZES = (4, 8, 16, 32, 64)


def by_layer(cells) -> dict[int, tuple[list[int], list[int]]]:
    """For each layer, the cells' places in the batch and their positions (or heads)."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for i, (layer, where) in enumerate(cells):
        found.setdefault(layer, ([], []))[0].append(i)
        found[layer][1].append(where)
    return found


class Adapter(Recipe):
    """Rows are cells."""

    columns: ClassVar = {"logits_to_keep": 1}
    reasons: ClassVar = {"attribution": "one pass attributes all edges: as in the plain loop"}

    def resid(self, case: Case) -> Job:
        module, (residuals, _) = self.module, clean_values(self.module, case)

        def replacing(layer: int, rows: list[int], places: list[int]) -> Callable:
            def replace(_module, _args, output):
                output.unflatten(0, (-1, case.rows))[rows, :, places] = residuals[layer][:, places].transpose(
                    0, 1
                )
                return output

            return replace

        def some(cells) -> torch.Tensor:
            hooks = (
                (module.transformer.h[layer], replacing(layer, *found))
                for layer, found in by_layer(cells).items()
            )
            with hooked(*hooks):
                logits = module(case.corrupted.repeat(len(cells), 1), **self.columns).logits
            return metric(logits).unflatten(0, (-1, case.rows))

        return tuned(some, resid_cells(case), SIZES)

    def heads(self, case: Case) -> Job:
        module, (_, merged) = self.module, clean_values(self.module, case)
        apart = [z.unflatten(-1, (case.heads, -1)) for z in merged]

        def replacing(layer: int, rows: list[int], heads: list[int]) -> Callable:
            def replace(_module, args):
                z = args[0].unflatten(-1, (case.heads, -1)).unflatten(0, (-1, case.rows))
                z[rows, :, :, heads] = apart[layer][:, :, heads].permute(2, 0, 1, 3)

            return replace

        def some(cells) -> torch.Tensor:
            handles = [
                module.transformer.h[layer].attn.c_proj.register_forward_pre_hook(replacing(layer, *found))
                for layer, found in by_layer(cells).items()
            ]
            try:
                logits = module(case.corrupted.repeat(len(cells), 1), **self.columns).logits
            finally:
                for handle in handles:
                    handle.remove()
            return metric(logits).unflatten(0, (-1, case.rows))

        return tuned(some, head_cells(case), SIZES)

    def edges(self, case: Case, which=edges_of) -> Job:
        changes, base = Changes(self.module, case), base_metric(self.module, case)
        return tuned(partial(patch_edges, self.module, case, changes, base), which(case), SIZES)

    def head_edges(self, case: Case) -> Job:
        return self.edges(case, head_edges_of)
