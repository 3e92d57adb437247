"""Attention sinks: tokens that draw attention without carrying anything, and what marks them.

    received[layer, head, k]   mean over queries i > k of pattern[i, k]
    sink rate                  share of heads whose received attention at the first token is above 0.3
    massive activation         |resid_post[token, d]| > 100 and > 1000 times the median size of that layer
    value drain                ||v|| of the token over the mean of the others, per layer

`sink_edits` cuts a token out of the heads given (its column of the scores, so that the others get its weight), or takes away only what
it carries (the pattern's column set to zero). If taking away what it carries changes nothing and cutting its column does, the token is
a sink and no source.

What it does not do: decide whether a sink does good. It is where a head looks when it has nothing to do.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.edits import Edit, Edits
from mainspring.errors import BrokenCheckpoint, InputError
from mainspring.measure.heads import Heads
from mainspring.measure.scores import Scores
from mainspring.methods import method
from mainspring.sites import at
from mainspring.storage import open_tensors, replace_file, tensor_bytes

if TYPE_CHECKING:
    from mainspring.models.model import Model
    from mainspring.views.specs import HeatView

__all__ = ["Sinks", "attention_sinks", "sink_edits"]

THRESHOLD = 0.3


@dataclass(frozen=True, eq=False)
class Sinks:
    """What every head gives to one token, and what marks that token.

    Attributes:
        received: [layer, head] mean attention of later tokens to it, with "elsewhere" (the most that any other token receives) as control.
        massive: (layer, dim, size) of its massive activations, layer by layer.
        drain: [layer] length of its values over the mean of the others'.
        position: the token that was looked at.
    """

    received: Scores
    massive: tuple[tuple[int, int, float], ...]
    drain: Tensor
    position: int

    @property
    def heads(self) -> tuple[tuple[int, int], ...]:
        """The heads for which it is a sink: received attention above 0.3, strongest first."""
        return tuple((e.index[0], e.index[1]) for e in self.received.ranked() if e.value > THRESHOLD)

    def rate(self, threshold: float = THRESHOLD) -> float:
        """The share of heads that give it more than `threshold`."""
        scored = self.received.values[~self.received.values.isnan()]
        return float((scored > threshold).double().mean())

    def view(self) -> "HeatView":
        """A heat map over layers and heads."""
        return self.received.view()  # type: ignore[return-value]

    def save(self, folder: str | Path) -> Path:
        """Write sinks.safetensors and the scores into a folder."""
        folder = self.received.save(folder)
        about = {"mainspring": "sinks", "position": str(self.position), "massive": json.dumps(self.massive)}
        replace_file(folder / "sinks.safetensors", tensor_bytes({"drain": self.drain}, about))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Sinks":
        """Read what `save` wrote."""
        file = Path(folder) / "sinks.safetensors"
        tensors, about = open_tensors(file)
        try:
            massive = tuple((int(layer), int(dim), float(size)) for layer, dim, size in json.loads(about["massive"]))
            return cls(Scores.load(folder), massive, tensors["drain"], int(about["position"]))
        except (KeyError, ValueError) as error:
            raise BrokenCheckpoint(f"{file} holds no sinks: {type(error).__name__}: {error}") from None

    def __str__(self) -> str:
        return (
            f"sink at position {self.position}: rate {self.rate():.2f}, {len(self.massive)} massive activations\n{self.received}"
        )


@method(organism="recall", control="elsewhere", page="find.md#attention-sinks")
def attention_sinks(model: "Model", inputs: Any, *, position: int = 0, edits: Any = None) -> Sinks:
    """How much attention a token draws from every head, whether its activations are massive and its values small.

    Args:
        model: any mapped decoder.
        inputs: as for `model.run`; a row needs two tokens behind the position.
        position: the token, counted in each row from its first real one.
        edits: applied in the run that is looked at.
    """
    layers = sorted({layer for layer, _ in Heads.of(model)})
    patterns, values = [at.layers[i].attn.pattern for i in layers], [at.layers[i].attn.v for i in layers]
    trace = model.run(inputs, read=[*patterns, *values, at.layers[:].resid_post], edits=edits)
    rows = trace.rows
    if position < 0 or min(rows.lengths) < position + 3:
        raise InputError(f"position {position} has no two tokens behind it in a row of {min(rows.lengths)} tokens")
    heads = max(trace[site].shape[1] for site in patterns)
    received, elsewhere = (torch.full((model.n_layers, heads), float("nan")) for _ in range(2))
    drain = torch.full((model.n_layers,), float("nan"))
    for layer, pattern, value in zip(layers, patterns, values, strict=True):
        columns = torch.stack([_received(trace[pattern][i].float().cpu(), rows, i) for i in range(rows.batch)]).nanmean(0)
        received[layer, : columns.shape[0]] = columns[:, position]
        others = torch.cat([columns[:, :position], columns[:, position + 1 :]], dim=1)
        elsewhere[layer, : columns.shape[0]] = others.nan_to_num(0).max(1).values
        lengths = [_real(trace[value][i], rows, i).float().norm(dim=-1).mean(-1).cpu() for i in range(rows.batch)]
        drain[layer] = float(torch.tensor([row[position] / _without(row, position).mean() for row in lengths]).mean())
    massive = _massive(trace[at.layers[:].resid_post], rows, position)
    labels = tuple(map(str, range(model.n_layers))), tuple(map(str, range(heads)))
    about = {"position": position, "rows": rows.batch}
    scores = Scores(received, ("layer", "head"), labels, "attention received", {"elsewhere": elsewhere}, about)
    return Sinks(scores, massive, drain, position)


def sink_edits(heads: Heads, how: str, *, position: int = 0) -> Edits:
    """Edits that take a token from these heads, for later queries: its "column", what it drew goes to other tokens; or its "value"

    alone, the other tokens keep the weight that they have.
    """
    if how not in ("column", "value"):
        raise InputError(f'how={how!r}: take away the "column" or the "value"')
    chosen, later = list[Edit](), slice(position + 1, None)
    for layer in dict.fromkeys(layer for layer, _ in heads):
        members = [head for at_layer, head in heads if at_layer == layer and head is not None]
        if how == "column":
            chosen.append(at.layers[layer].attn.scores(head=members, key=position, query=later).mask())
        else:
            chosen.append(at.layers[layer].attn.pattern(head=members, key=position, query=later).ablate("zero"))
    return Edits(chosen)


def _received(pattern: Tensor, rows: Any, row: int) -> Tensor:
    """[head, token] mean attention that later tokens of a row give to each of its tokens; NaN for the last, and beyond the row."""
    start, length = rows.offsets[row], rows.lengths[row]
    own = pattern[:, start : start + length, start : start + length].tril(-1)
    later = torch.arange(length - 1, -1, -1).float()
    mean = own.sum(1) / later.clamp(min=1)
    out = torch.full((pattern.shape[0], rows.width), float("nan"))
    out[:, : length - 1] = mean[:, : length - 1]
    return out


def _real(value: Tensor, rows: Any, row: int) -> Tensor:
    return value[rows.offsets[row] : rows.offsets[row] + rows.lengths[row]]


def _without(row: Tensor, position: int) -> Tensor:
    return torch.cat([row[:position], row[position + 1 :]])


def _massive(residuals: Tensor, rows: Any, position: int) -> tuple[tuple[int, int, float], ...]:
    """Dimensions that are massive at the position in every row: above 100, and above 1000 medians of the layer."""
    found: list[tuple[int, int, float]] = []
    for layer, values in enumerate(residuals.float().abs().cpu()):
        real = torch.cat([_real(values[i], rows, i) for i in range(rows.batch)])
        at_place = torch.stack([_real(values[i], rows, i)[position] for i in range(rows.batch)]).min(0).values
        bar = max(100.0, 1000.0 * float(real.median()))
        found += [(layer, int(d), float(at_place[d])) for d in (at_place > bar).nonzero().flatten()]
    return tuple(found)
