"""Hooks for training: what parts compute by themselves, and parts that are handed what they should read.

    watching      keeps z of every head, the output of every MLP and every pattern, before other hooks change them
    taught        a share of what attentions and MLPs give on is replaced by what they should give on

While a host is taught, a part learns from what it is going to read before the parts below have learned to write it.

What it does not do: hold a model to anything; the losses do.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mainspring.organisms.hooked import Record
from mainspring.organisms.hosts import blocks_of
from mainspring.organisms.trained_in.alignment import Alignment, Seat
from mainspring.organisms.trained_in.pool import Wanted

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["Watch", "coded", "taught", "watching"]


@dataclass(eq=False)
class Watch:
    """What one run computes, layer by layer; patterns [b, h, p, p] if the host has heads and computes them eagerly."""

    z: "list[Tensor]" = field(default_factory=list["Tensor"])
    mlp: "list[Tensor]" = field(default_factory=list["Tensor"])
    patterns: "list[Tensor]" = field(default_factory=list["Tensor"])

    def record(self, logits: "Tensor") -> Record:
        return Record(tuple(self.z), tuple(self.mlp), logits)


@contextmanager
def watching(model: "Module") -> Iterator[Watch]:
    """Open it before anything that changes parts, so that it sees what they compute by themselves."""
    watch = Watch()
    handles: list[Any] = []
    for block in blocks_of(model):

        def keep_z(_: "Module", inputs: "tuple[Tensor, ...]", heads: int = block.heads) -> None:
            watch.z.append(inputs[0].unflatten(-1, (heads, -1)) if heads else inputs[0][:, :, None][:, :, :0])

        def keep_mlp(_: "Module", __: Any, output: "Tensor") -> None:
            watch.mlp.append(output)

        handles.append(block.project.register_forward_pre_hook(keep_z))
        handles.append(block.mlp.register_forward_hook(keep_mlp))
    for layer in getattr(getattr(model, "model", None), "layers", ()):

        def keep_pattern(_: "Module", __: Any, output: Any) -> None:
            watch.patterns.append(output[1])

        handles.append(layer.self_attn.register_forward_hook(keep_pattern))
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def coded(seats: Sequence[Seat], wanted: Wanted) -> "dict[tuple[int, int | None], Tensor]":
    """[b, p, d] per node: the codes of what it carries. A backup carries nothing but where it stands in."""
    codes: dict[tuple[int, int | None], Tensor] = {}
    for seat in seats:
        name = seat.part.writes
        code = (seat.codes @ seat.basis)[wanted.labels[name].clamp(min=0)]
        if seat.backup:
            code = code * wanted.silent[name][:, None, None]
        codes[seat.node] = codes[seat.node] + code if seat.node in codes else code
    return codes


@contextmanager
def taught(
    model: "Module",
    alignment: Alignment,
    wanted: Wanted,
    share: float,
    generator: "Generator",
    surely: "Mapping[str, Tensor] | None" = None,
) -> Iterator[None]:
    """Attentions and MLPs give on the codes of their values: each of them in this share of the rows, drawn by itself.

    `surely` says for some variables in which rows [b] that is certain. Decoys give on codes of unrelated rows: nobody
    shall read them. Heads that are silenced give on nothing.
    """
    import torch

    handles: list[Any] = []
    sure = surely or {}
    silenced = {seat.node: wanted.silent[seat.part.writes] for seat in alignment.real if seat.part.writes in wanted.silent}
    given: dict[tuple[int, bool], Tensor] = {}
    if share:
        circuit = {seat.node for seat in (*alignment.real, *alignment.backups)}
        for node, codes in coded(alignment.seats, wanted).items():
            codes = codes if node in circuit else codes[torch.randperm(len(codes), generator=generator)]
            codes = codes * ~silenced[node][:, None, None] if node in silenced else codes
            at = (node[0], node[1] is None)
            given[at] = given[at] + codes if at in given else codes
    for layer, block in enumerate(blocks_of(model)):
        heads = {head: rows for (at, head), rows in silenced.items() if at == layer}
        if heads:

            def silence(
                _: "Module", inputs: "tuple[Tensor, ...]", heads: Any = heads, count: int = block.heads
            ) -> "tuple[Tensor, ...]":
                z = inputs[0].unflatten(-1, (count, -1)).clone()
                for head, rows in heads.items():
                    z[rows, :, head] = 0.0
                return (z.flatten(-2),)

            handles.append(block.project.register_forward_pre_hook(silence))
        for module, is_mlp in ((block.project, False), (block.mlp, True)):
            if (layer, is_mlp) not in given:
                continue
            codes = given[layer, is_mlp]
            rows = torch.rand(len(codes), 1, 1, generator=generator) < share
            for seat in (*alignment.real, *alignment.backups):
                if (seat.node[0], seat.node[1] is None) == (layer, is_mlp) and seat.part.writes in sure:
                    rows = rows | sure[seat.part.writes][:, None, None]

            def swap(_: "Module", __: Any, output: "Tensor", codes: Any = codes, rows: Any = rows) -> "Tensor":
                return torch.where(rows, codes, output)

            handles.append(module.register_forward_hook(swap))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
