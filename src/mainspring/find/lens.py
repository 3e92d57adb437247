"""The logit lens: what the model would say if it stopped after each layer.

    lens[layer] = unembed(final_norm(resid_post[layer]))        at the positions asked for

Read through the model's own last norm and head, scaled or capped as they are: the last layer's output is replaced by an earlier one's,
for all layers in one planned sweep. The last row of the lens is therefore the model's own output.

What it does not do: correct for how directions drift between layers. A layer that says nothing here may still know it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.errors import BrokenCheckpoint, InputError
from mainspring.methods import method
from mainspring.sites import at
from mainspring.storage import open_tensors, replace_file, tensor_bytes

if TYPE_CHECKING:
    from mainspring.models.model import Model
    from mainspring.views.specs import GridView

__all__ = ["Lens", "logit_lens"]


@dataclass(frozen=True, eq=False)
class Lens:
    """`logprobs[layer, row, vocab]` at one position of every row, in nats.

    `tokens` holds the ids of the rows at the position, `decode` makes a text of an id.
    """

    logprobs: Tensor
    words: tuple[str, ...]
    pos: int

    @property
    def n_layers(self) -> int:
        return len(self.logprobs)

    def top(self, k: int = 5, row: int = 0) -> tuple[tuple[tuple[str, float], ...], ...]:
        """For every layer the k likeliest next tokens of a row, with their probabilities."""
        found = self.logprobs[:, row].exp().topk(k, dim=-1)
        pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return tuple(tuple((self.words[i], p) for i, p in zip(ids, ps, strict=True)) for ids, ps in pairs)

    def rank(self, tokens: Tensor) -> Tensor:
        """[layer, row] how many tokens are likelier than the given one of each row; 0 is the likeliest."""
        own = self._of(tokens)
        return (self.logprobs > own[..., None]).sum(-1)

    def probability(self, tokens: Tensor) -> Tensor:
        """[layer, row] the probability of the given token of each row."""
        return self._of(tokens).exp()

    def settled(self, tokens: Tensor) -> Tensor:
        """[row] the first layer from which on the given token is the likeliest; n_layers where it never is."""
        wrong = self.rank(tokens) > 0
        last = torch.arange(1, self.n_layers + 1)[:, None] * wrong
        return last.max(0).values

    def entropy(self) -> Tensor:
        """[layer, row] how undecided each layer is, in nats."""
        return -(self.logprobs.exp() * self.logprobs.clamp(min=-1e4)).sum(-1)

    def view(self, row: int = 0, k: int = 4) -> "GridView":
        """The likeliest tokens of one row, a row of the picture for each layer, the last layer on top."""
        from mainspring.views.specs import GridView

        cells = tuple(tuple((word, p) for word, p in layer) for layer in self.top(k, row))
        return GridView(
            cells=cells[::-1],
            x=tuple(f"#{i + 1}" for i in range(k)),
            y=tuple(f"layer {i}" for i in reversed(range(self.n_layers))),
            x_title="likeliest next tokens",
            title=f"logit lens at position {self.pos}",
            value_title="probability",
        )

    def save(self, folder: str | Path) -> Path:
        """Write lens.safetensors into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {"mainspring": "lens", "pos": str(self.pos), "words": json.dumps(self.words)}
        replace_file(folder / "lens.safetensors", tensor_bytes({"logprobs": self.logprobs}, about))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> "Lens":
        """Read what `save` wrote."""
        file = Path(folder) / "lens.safetensors"
        tensors, about = open_tensors(file)
        try:
            return cls(tensors["logprobs"], tuple(json.loads(about["words"])), int(about["pos"]))
        except (KeyError, ValueError) as error:
            raise BrokenCheckpoint(f"{file} holds no lens: {type(error).__name__}: {error}") from None

    def _of(self, tokens: Tensor) -> Tensor:
        index = torch.as_tensor(tokens, dtype=torch.long)
        if index.shape != (self.logprobs.shape[1],):
            raise InputError(f"one token for each of {self.logprobs.shape[1]} rows is needed; got shape {tuple(index.shape)}")
        return self.logprobs.gather(-1, index[None, :, None].expand(self.n_layers, -1, 1)).squeeze(-1)

    def __str__(self) -> str:
        lines = [f"logit lens of {self.logprobs.shape[1]} rows at position {self.pos}; row 0:"]
        for layer, row in enumerate(self.top(4)):
            lines.append(f"{layer:4d}  " + "  ".join(f"{word!r} {p:.2f}" for word, p in row))
        return "\n".join(lines)

    __repr__ = __str__


@method(organism="recall", control="another row's answer", page="find.md#the-logit-lens")
def logit_lens(model: "Model", inputs: Any, *, pos: int = -1, edits: Any = None) -> Lens:
    """What every layer would say next, at one position of every row.

    Args:
        model: any mapped decoder.
        inputs: as for `model.run`.
        pos: the position, counted in each row's real tokens.
        edits: applied in the run whose layers are read.
    """
    last = model.n_layers - 1
    site, goal = at.layers[:].resid_post(pos=pos), at.layers[last].resid_post(pos=pos)
    trace = model.run(inputs, read=[site, at.logits(pos=pos)], edits=edits, until="end")
    rows = [trace[at.logits(pos=pos)]]
    if last:
        early = trace[site][:-1]
        swept = model.sweep(inputs, [goal.set(value) for value in early], at.logits(pos=pos))
        rows = [*swept.values.to(rows[0]), *rows]
    logprobs = torch.stack(list(rows)).float().log_softmax(-1).cpu()
    return Lens(logprobs, _words(model, logprobs.shape[-1]), pos)


def _words(model: "Model", size: int) -> tuple[str, ...]:
    """The text of every token id; the ids themselves without a tokenizer."""
    if model.tokenizer is None:
        return tuple(map(str, range(size)))
    known = model.tokenizer.batch_decode([[i] for i in range(min(size, len(model.tokenizer)))])
    return (*known, *map(str, range(len(known), size)))
