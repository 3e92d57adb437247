"""What the pair-icl organism does, and what it does with heads patched or vectors added, written out on sites alone.

Everything is asked at the last token of prompts of `mainspring.tasks.pair_icl`, the ":" before the answer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mainspring.edits import Edits
from mainspring.sites import at
from mainspring.tasks.pair_icl import FUNCTIONS, NAMES, SYMBOLS, Batch, Kind, draw, token

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = [
    "accuracy",
    "alone",
    "answers",
    "batch",
    "indirect_effects",
    "label_mass",
    "list_pairs",
    "naming",
    "queries_moved",
    "query_effects",
    "shuffled",
]
__all__ += ["task_vectors", "with_vector"]

Heads = Sequence[tuple[int, int]]
_FUNCTIONS = torch.tensor(FUNCTIONS)
_SYMBOL, _NAME = token(SYMBOLS[0]), token(NAMES[0])
SHOTS = 6


def batch(kind: Kind, seed: int, count: int = 128, size: int | None = None, task: Tensor | None = None) -> Batch:
    """Prompts of one kind."""
    return draw(kind, count, torch.Generator().manual_seed(seed), size, task)


def answers(model: "Model", prompt: Tensor, edits: Any = None) -> Tensor:
    """[row] the likeliest next token."""
    return model.run(prompt, edits=edits, read=at.logits(pos=-1))[at.logits(pos=-1)].argmax(-1).flatten().cpu()


def accuracy(model: "Model", given: Batch, edits: Any = None) -> float:
    """The share of right answers."""
    return float((answers(model, given.prompt, edits) == given.answer).float().mean())


def alone(seed: int, count: int = 128) -> Batch:
    """Prompts without examples, whose answer no other function gives: to guess what several give is to be wrong."""
    given = batch("plain", seed, 4 * count)
    own = (_FUNCTIONS[:, given.query] == _FUNCTIONS[given.task, given.query]).sum(0) == 1
    return _rows(given, own.nonzero()[:count, 0])


def shuffled(seed: int, count: int = 128) -> Batch:
    """Prompts of examples whose answers have changed places, so that they tell no function; the answer is still the function's."""
    given = batch("shots", seed, count, SHOTS)
    ids = given.ids.clone()
    places = torch.arange(3, 3 + 4 * SHOTS, 4)
    order = torch.rand(count, SHOTS, generator=torch.Generator().manual_seed(seed + 1)).argsort(1)
    ids[:, places] = ids[:, places].gather(1, order)
    return Batch("shots", ids, given.wanted, given.task, given.query, given.place)


def _task_means(model: "Model", site: Any, seed: int, kind: Kind = "shots", each: int = 24) -> Tensor:
    """[task, ...] the mean of a site at the last token, over prompts of every task."""
    tasks = torch.arange(len(NAMES)).repeat_interleave(each)
    given = batch(kind, seed, len(tasks), SHOTS if kind == "shots" else None, tasks)
    return model.run(given.prompt, read=site)[site].cpu().unflatten(0, (len(NAMES), each)).mean(1)


def indirect_effects(model: "Model", seed: int) -> Tensor:
    """[layer, head] by how much the right answer to shuffled examples becomes likelier when a head is put at its mean over prompts of
    the right task: the average indirect effect. Zeros for the first layer.
    """
    given = shuffled(seed)
    rows = torch.arange(len(given.ids))

    def likely(edits: Any) -> Tensor:
        return model.run(given.prompt, edits=edits, read=at.logits(pos=-1))[at.logits(pos=-1)].softmax(-1).flatten(0, -2).cpu()

    plain, table = likely(None)[rows, given.answer], []
    for layer in range(1, model.n_layers):
        site = at.layers[layer].attn.z(pos=-1)
        means = _task_means(model, site, seed + 7)[given.task]  # [row, head, head_dim]
        effects = [
            (likely(at.layers[layer].attn.z(head=head, pos=-1).set(means[:, head]))[rows, given.answer] - plain).mean()
            for head in range(means.shape[1])
        ]
        table.append(torch.stack(effects))
    return torch.stack([torch.zeros_like(table[0]), *table])


def task_vectors(model: "Model", heads: Heads, seed: int, kind: Kind = "shots") -> Tensor:
    """[task, dim] the sum over heads of what they write at the last token, as a mean over prompts of the task."""
    total: Any = 0.0
    for layer in sorted({layer for layer, _ in heads}):
        means = _task_means(model, at.layers[layer].attn.head_out(pos=-1), seed, kind)
        total = total + means[:, [head for at_layer, head in heads if at_layer == layer]].sum(1)
    return total


def with_vector(model: "Model", vectors: Tensor, layer: int, given: Batch, task: Tensor) -> float:
    """How often the answer is that of `task` [row] when its vector is added at the last token, behind a layer."""
    edit = at.layers[layer].resid_post(pos=-1).add(vectors[task])
    wanted = _SYMBOL + _FUNCTIONS[task, given.query]
    return float((answers(model, given.prompt, edit) == wanted).float().mean())


def naming(model: "Model", kind: Kind, seed: int, count: int = 128) -> Tensor:
    """[layer, head, 2] how often what a head writes at the last token, decoded by the unembedding, has the name of the task foremost
    among all words, and how often that of the next task.
    """
    given = batch(kind, seed, count, SHOTS if kind == "shots" else None)
    module: Any = model.module
    words, gain = module.get_output_embeddings().weight.detach().cpu(), module.transformer.ln_f.weight.detach().cpu()
    sites = [at.layers[layer].attn.head_out(pos=-1) for layer in range(model.n_layers)]
    trace = model.run(given.prompt, read=sites)
    table = []
    for site in sites:
        best = (trace[site].cpu() * gain @ words.T).argmax(-1)  # [row, head]
        table.append(torch.stack([(best == (_NAME + (given.task + off) % 10)[:, None]).float().mean(0) for off in (0, 1)], -1))
    return torch.stack(table)


# ---- lists ---------------------------------------------------------------------------------------------------------------------------


def list_pairs(seed: int, count: int = 128, size: int = 5) -> tuple[Batch, Batch, Tensor]:
    """Two batches of lists that ask for different categories, and [row] the item of the first batch's list that is of the category
    that the second asks for.
    """
    generator = torch.Generator().manual_seed(seed)
    base = draw("which", 8 * count, generator, size)
    source = draw("which", 8 * count, generator, size)
    items = base.ids[:, 2 : 2 + size]
    group = (items - token("apple")) // 6
    fits = group == source.task[:, None]
    keep = fits.any(1) & (base.task != source.task)
    keep &= ~(items[..., None] == source.ids[:, None, 2 : 2 + size]).any(-1).any(-1)
    chosen = keep.nonzero().flatten()[:count]
    target = items[chosen, fits[chosen].float().argmax(1)]
    return _rows(base, chosen), _rows(source, chosen), target


def _rows(given: Batch, rows: Tensor) -> Batch:
    return Batch(given.kind, *(value[rows] for value in (given.ids, given.wanted, given.task, given.query, given.place)))


def queries_moved(model: "Model", heads: Heads, base: Batch, source: Batch) -> Tensor:
    """[row] the answer to a list when the queries of heads at its last token are those of another list's last token."""
    layers = sorted({layer for layer, _ in heads})
    trace = model.run(source.prompt, read=[at.layers[layer].attn.q_proj for layer in layers])
    return answers(model, base.prompt, Edits(at.layers[layer].attn.q_proj(head=h, pos=-1).patch(trace) for layer, h in heads))


def query_effects(model: "Model", seed: int) -> Tensor:
    """[layer, head] by how much the logit of the other category's item rises over the right one's when a head's query alone is moved.

    Zeros for the first layer.
    """
    base, source, target = list_pairs(seed, 96)
    sites = [at.layers[layer].attn.q_proj for layer in range(model.n_layers)]
    trace, rows = model.run(source.prompt, read=sites), torch.arange(len(target))

    def gap(edits: Any) -> Tensor:
        logits = model.run(base.prompt, edits=edits, read=at.logits(pos=-1))[at.logits(pos=-1)].flatten(0, -2).cpu()
        return (logits[rows, target] - logits[rows, base.answer]).mean()

    plain = gap(None)
    heads = range(model.atlas.place(sites[0]).sizes["head"])
    table = [torch.stack([gap(site(head=h, pos=-1).patch(trace)) - plain for h in heads]) for site in sites[1:]]
    return torch.stack([torch.zeros_like(table[0]), *table])


def label_mass(model: "Model", given: Batch) -> Tensor:
    """[layer, head] attention from the last token to the place of the answer."""
    site = at.layers[:].attn.pattern(query=-1)
    pattern = model.run(given.prompt, read=site)[site].float().cpu()
    rows = torch.arange(len(given.ids))
    pattern = pattern.reshape(len(pattern), len(rows), -1, given.prompt.shape[1])  # [layer, row, head, key]
    return pattern.movedim(2, 1)[:, :, rows, given.place].mean(-1)
