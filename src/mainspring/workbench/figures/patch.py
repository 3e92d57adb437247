"""Two prompts of equal length, and what happens to the clean run when one value of it is taken from the other.

    m     = logit(clean answer) - logit(other answer) at the last token
    score = m(clean) - m(clean with one value from the other run)

by layer and token (the residual stream behind the layer) or by layer and head (a head's mix of values, at all tokens). Positive: the
value works for the clean answer. Both maps are planned sweeps. What it does not do: see a part that another one backs up.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from mainspring.edits import Edit
from mainspring.errors import InputError
from mainspring.measure.heads import Heads
from mainspring.measure.metrics import Metric, logit_difference
from mainspring.measure.scores import Scores
from mainspring.sites import at
from mainspring.views.specs import TableView
from mainspring.workbench.figures.look import tokens_of, word_of

if TYPE_CHECKING:
    from mainspring.models.model import Model
    from mainspring.trace import Trace

__all__ = ["Pair", "What", "cell_edit", "patch_heads", "patch_positions", "patched_run"]

What: TypeAlias = Literal["position", "head"]
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Pair:
    """A clean and another prompt, aligned token by token, and the first tokens of their answers."""

    clean: str
    other: str
    tokens: tuple[str, ...]
    changed: tuple[int, ...]
    answers: tuple[int, int]
    words: tuple[str, str]

    @classmethod
    def of(cls, model: "Model", clean: str, other: str, answer: str = "", other_answer: str = "") -> "Pair":
        """The prompts must have as many tokens. Without answers the model's own likeliest next tokens are taken."""
        mine, theirs = tokens_of(model, clean), tokens_of(model, other)
        if len(mine) != len(theirs):
            raise InputError(f"the prompts have {len(mine)} and {len(theirs)} tokens; patching needs as many in both")
        changed = tuple(i for i, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
        if not changed:
            raise InputError("both prompts are the same, so there is nothing to patch")
        ids = (_answer(model, clean, answer), _answer(model, other, other_answer))
        if ids[0] == ids[1]:
            raise InputError(f"both prompts have the answer {word_of(model, ids[0])!r}; name two answers that differ")
        return cls(clean, other, mine, changed, ids, (word_of(model, ids[0]), word_of(model, ids[1])))

    @property
    def metric(self) -> Metric:
        return logit_difference(*self.answers)


def patch_positions(model: "Model", pair: Pair, progress: Progress | bool = False) -> Scores:
    """Scores over (layer, token): the residual stream behind each layer, one token at a time."""
    layers, tokens = range(model.n_layers), range(len(pair.tokens))
    source = model.run(pair.other, read=at.layers[:].resid_post)
    cells = [cell_edit("position", layer, token, source) for layer in layers for token in tokens]
    swept = model.sweep(pair.clean, cells, pair.metric, progress=progress)
    values = (swept.base - swept.values)[:, 0].reshape(len(layers), len(tokens)).float().cpu()
    names = tuple(f"{i} {token.strip() or token}" for i, token in enumerate(pair.tokens))
    return Scores(
        values, ("layer", "token"), (tuple(map(str, layers)), names), "Residual stream, by layer and token", sign="absolute"
    )


def patch_heads(model: "Model", pair: Pair, progress: Progress | bool = False) -> Scores:
    """Scores over (layer, head)."""
    heads = Heads.of(model)
    source = model.run(pair.other, read=heads.sites)
    cells = [heads.choose([head]).edits("patch", source) for head in heads]
    swept = model.sweep(pair.clean, cells, pair.metric, progress=progress)
    falls = (swept.base - swept.values)[:, 0].tolist()
    return heads.scores(dict(zip(heads, falls, strict=True)), "Heads, by layer and head", sign="absolute")


def cell_edit(what: What, layer: int, index: int, source: "Trace") -> Edit:
    """The edit behind one cell of a map."""
    site: Any = at.layers[layer].resid_post(pos=index) if what == "position" else at.layers[layer].attn.z(head=index)
    return site.patch(source)


def patched_run(model: "Model", pair: Pair, what: What, layer: int, index: int, k: int = 6) -> TableView:
    """The likeliest next tokens of the patched run, with what each has in the clean and in the other run."""
    read = at.layers[layer].resid_post if what == "position" else at.layers[layer].attn.z
    last = at.logits(pos=-1)
    other = model.run(pair.other, read=[read, last], until="end")
    clean = model.run(pair.clean, read=last, until="end")
    patched = model.run(pair.clean, edits=cell_edit(what, layer, index, other), read=last, until="end")
    chances = [run[last][0].float().softmax(-1).cpu() for run in (clean, patched, other)]
    order = dict.fromkeys([*pair.answers, *chances[1].topk(min(k, len(chances[1]))).indices.tolist()])
    rows = tuple((word_of(model, i), *(round(float(c[i]), 4) for c in chances)) for i in order)
    place = f"token {index} ({pair.tokens[index].strip()})" if what == "position" else f"head {index}"
    return TableView(("next token", "clean", "patched", "other"), rows, f"Layer {layer}, {place}: probability of the next token")


def _answer(model: "Model", prompt: str, answer: str) -> int:
    if not answer:
        last = at.logits(pos=-1)
        return int(model.run(prompt, read=last, until="end")[last][0].argmax())
    ids = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not ids or model.tokenizer.unk_token_id in ids[:1]:
        raise InputError(f"the model has no token for the answer {answer!r}")
    return int(torch.as_tensor(ids).flatten()[0])
