"""Runs of a planted model with parts read or replaced, by plain torch hooks and nothing else.

This is the oracle side: it must not share code with any engine that is judged on organisms.

What it does not do: keep anything attached after the run, or work on other architectures.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.organisms.hosts import blocks_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

__all__ = ["Record", "record", "replaced", "written"]


@dataclass(frozen=True, eq=False)
class Record:
    """What a run computed: z per layer [b, p, h, dh], MLP output per layer [b, p, d], logits [b, vocabulary] at the end."""

    z: tuple["Tensor", ...]
    mlp: tuple["Tensor", ...]
    logits: "Tensor"

    def rows(self, order: "Tensor") -> "Record":
        """The same run with its inputs in another order."""
        return Record(tuple(z[order] for z in self.z), tuple(m[order] for m in self.mlp), self.logits[order])

    def part(self, layer: int, head: int | None) -> "Tensor":
        return self.mlp[layer] if head is None else self.z[layer][:, :, head]


def record(model: "Module", ids: "Tensor") -> Record:
    """Run and keep every head and MLP."""
    import torch

    z: list[Tensor] = []
    mlp: list[Tensor] = []
    handles: list[Any] = []
    for block in blocks_of(model):

        def keep_z(_: "Module", inputs: tuple["Tensor", ...], heads: int = block.heads) -> None:
            z.append(inputs[0].unflatten(-1, (heads, -1)))

        def keep_mlp(_: "Module", __: Any, output: "Tensor") -> None:
            mlp.append(output)

        handles.append(block.project.register_forward_pre_hook(keep_z))
        handles.append(block.mlp.register_forward_hook(keep_mlp))
    try:
        with torch.no_grad():
            logits = model(ids).logits[:, -1]
    finally:
        for handle in handles:
            handle.remove()
    return Record(tuple(z), tuple(mlp), logits)


def written(model: "Module", run: Record, layer: int, head: int | None) -> "Tensor":
    """[b, p, d]: what a head or MLP adds to the residual stream."""
    if head is None:
        return run.mlp[layer]
    block = blocks_of(model)[layer]
    return run.z[layer][:, :, head] @ block.out_weight.unflatten(0, (block.heads, -1))[head]


def replaced(
    model: "Module",
    ids: "Tensor",
    parts: Mapping[tuple[int, int | None], "Tensor"],
    added: Mapping[tuple[int, bool], "Tensor"] | None = None,
) -> "Tensor":
    """[b, vocabulary]: the last logits with parts (z of a head, output of an MLP) replaced.

    `added` (layer, is it the MLP) -> [b, p, d] is added to the output of the attention or the MLP after that.
    """
    import torch

    with _editing(model, parts, added or {}), torch.no_grad():
        return model(ids).logits[:, -1]


@contextmanager
def _editing(
    model: "Module",
    parts: Mapping[tuple[int, int | None], "Tensor"],
    added: Mapping[tuple[int, bool], "Tensor"],
) -> Iterator[None]:
    handles: list[Any] = []
    try:
        for layer, block in enumerate(blocks_of(model)):
            heads = {head: value for (at, head), value in parts.items() if at == layer and head is not None}
            if heads:

                def swap(
                    _: "Module", inputs: tuple["Tensor", ...], heads: Any = heads, count: int = block.heads
                ) -> tuple["Tensor", ...]:
                    z = inputs[0].unflatten(-1, (count, -1)).clone()
                    for head, value in heads.items():
                        z[:, :, head] = value
                    return (z.flatten(-2),)

                handles.append(block.project.register_forward_pre_hook(swap))
            for module, is_mlp in ((block.project, False), (block.mlp, True)):
                whole = parts.get((layer, None)) if is_mlp else None
                more = added.get((layer, is_mlp))
                if whole is None and more is None:
                    continue

                def change(_: "Module", __: Any, output: "Tensor", whole: Any = whole, more: Any = more) -> "Tensor":
                    output = output if whole is None else whole
                    return output if more is None else output + more

                handles.append(module.register_forward_hook(change))
        yield
    finally:
        for handle in handles:
            handle.remove()
