"""Induction heads: heads that look at what followed an earlier occurrence of the token they stand on.

    prefix-matching score of a head = mean over queries i of  sum over j < i with x[j-1] = x[i]  of  pattern[i, j]

taken over the queries whose token occurred before. By default texts are random tokens said twice, in which nothing but repetition
can be used. `previous_token_heads` scores pattern[i, i-1], the first half of the mechanism.

Controls: "no repetition", the same places of the pattern in texts whose first half is other random tokens, and "uniform", what a head
that looks evenly at all earlier tokens would score.

What it does not do: show that a head's output is used. Ablate it (`heads.edits("ablate", "mean")`) and see the repetition get lost.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.errors import InputError
from mainspring.measure.heads import Heads
from mainspring.measure.scores import Scores
from mainspring.methods import method
from mainspring.sites import at

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["induction_heads", "previous_token_heads", "repeated_tokens", "repetition_gain"]


@method(organism="recall", control="no repetition", page="find.md#induction-heads")
def induction_heads(
    model: "Model",
    inputs: Any = None,
    *,
    length: int = 24,
    count: int = 16,
    seed: int = 0,
    tokens: Any = None,
    pos: int | None = None,
) -> Scores:
    """The prefix-matching score of every head, [layer, head], from 0 to 1.

    Args:
        model: any mapped decoder.
        inputs: token rows of one length, [row, pos], with repetitions; random tokens said twice by default.
        length: how many random tokens are said twice.
        count: how many rows.
        seed: of the random tokens.
        tokens: the ids to draw from; the whole vocabulary without the tokenizer's special ones by default.
        pos: score the queries at this position alone.
    """
    if inputs is None:
        rows = repeated_tokens(model, length, count, seed, tokens)
        first = repeated_tokens(model, length, count, seed + 7919, tokens)[:, : rows.shape[1] // 2]
        unrelated = torch.cat([first, rows[:, rows.shape[1] // 2 :]], dim=1)
    else:
        rows, unrelated = torch.as_tensor(inputs), None
        if rows.ndim != 2:
            raise InputError(f"induction is scored on token rows of one length, [row, pos]; got shape {tuple(rows.shape)}")
    wanted = _after_earlier(rows)
    if pos is not None:
        here = torch.zeros(rows.shape[1], dtype=torch.bool)
        here[pos] = True
        wanted &= here[:, None]
    if not bool(wanted.any()):
        raise InputError("no token of these inputs occurs twice, so there is nothing to match")
    scores = _looking(model, rows, wanted)
    reach = torch.arange(1, rows.shape[1] + 1)[None, :].expand(len(rows), -1)
    asked = wanted.any(-1)
    uniform = float((wanted.sum(-1) / reach)[asked].mean())
    controls: dict[str, Tensor | float] = {"uniform": uniform}
    if unrelated is not None:
        controls["no repetition"] = _looking(model, unrelated, wanted)
    return _table(model, scores, "prefix-matching score", controls, seed=seed, rows=len(rows))


@method(organism="recall", control="uniform", page="find.md#induction-heads")
def previous_token_heads(
    model: "Model", inputs: Any = None, *, length: int = 24, count: int = 16, seed: int = 0, tokens: Any = None
) -> Scores:
    """How much every head looks from a token at the one before it, [layer, head]; arguments as for `induction_heads`."""
    rows = repeated_tokens(model, length, count, seed, tokens) if inputs is None else torch.as_tensor(inputs)
    wanted = torch.zeros(len(rows), rows.shape[1], rows.shape[1], dtype=torch.bool)
    places = torch.arange(1, rows.shape[1])
    wanted[:, places, places - 1] = True
    uniform = float((1 / torch.arange(2.0, rows.shape[1] + 1)).mean())
    return _table(model, _looking(model, rows, wanted), "previous-token score", {"uniform": uniform}, seed=seed, rows=len(rows))


def repeated_tokens(model: "Model", length: int, count: int, seed: int = 0, tokens: Any = None) -> Tensor:
    """[count, 2 * length] random tokens, each row said twice; no token stands twice in one half."""
    if tokens is None:
        size = model.atlas.vocabulary
        if size is None:
            raise InputError("this model embeds no tokens; say which ids to draw from (tokens=)")
        special = set(getattr(model.tokenizer, "all_special_ids", None) or ())
        tokens = [i for i in range(size) if i not in special]
    pool = torch.as_tensor(tokens, dtype=torch.long)
    if len(pool) < length:
        raise InputError(f"{length} different tokens are wanted, and there are {len(pool)} to draw from; give a smaller length=")
    generator = torch.Generator().manual_seed(seed)
    half = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:length]] for _ in range(count)])
    return torch.cat([half, half], dim=1)


def repetition_gain(model: "Model", rows: Tensor, *, edits: Any = None) -> Tensor:
    """[row] by how many nats the second half of repeated rows is easier to predict than the first: what induction is worth."""
    half = rows.shape[1] // 2
    logits = model.run(rows, edits=edits, read=at.logits)[at.logits].float()
    loss = -logits[:, :-1].log_softmax(-1).gather(-1, rows[:, 1:, None].to(logits.device)).squeeze(-1)
    return (loss[:, 1 : half - 1].mean(1) - loss[:, half:].mean(1)).detach().cpu()


def _after_earlier(rows: Tensor) -> Tensor:
    """[row, query, key]: whether the key follows an earlier occurrence of the query's token."""
    same = rows[:, :, None] == rows[:, None, :]
    after = torch.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]
    return after.tril()  # the key behind the query itself would always match


def _looking(model: "Model", rows: Tensor, wanted: Tensor) -> Tensor:
    """[layer, head] attention on the wanted places, averaged over the queries that have any."""
    asked = wanted.any(-1)
    heads = Heads.of(model)
    table = torch.full((model.n_layers, max(h for _, h in heads if h is not None) + 1), float("nan"))
    layers = sorted({layer for layer, _ in heads})
    trace = model.run(rows, read=[at.layers[layer].attn.pattern for layer in layers])
    for layer in layers:
        pattern = trace[at.layers[layer].attn.pattern].float().cpu()
        mass = (pattern * wanted[:, None]).sum(-1).transpose(1, 2)[asked]
        table[layer, : mass.shape[1]] = mass.mean(0)
    return table


def _table(model: "Model", values: Tensor, name: str, controls: dict[str, Tensor | float], **about: Any) -> Scores:
    labels = tuple(map(str, range(values.shape[0]))), tuple(map(str, range(values.shape[1])))
    return Scores(values, ("layer", "head"), labels, name, controls, about)
