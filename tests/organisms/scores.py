"""Scores of node-finding methods on planted organisms, by plain hooks: the oracle that methods are judged against."""

from collections.abc import Iterable
from typing import Any

import torch

from mainspring.organisms.hooked import record, replaced, written
from mainspring.organisms.hosts import blocks_of
from mainspring.organisms.planted import Planted
from mainspring.organisms.tokens import ids_of

Node = tuple[int, int | None]


def auroc(scores: dict[Node, float], positives: Iterable[Node], negatives: Iterable[Node]) -> float:
    """The chance that a positive scores above a negative; ties count half."""
    pairs = [(scores[p], scores[n]) for p in positives for n in negatives]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


def node_aurocs(planted: Planted, count: int = 48, seed: int = 5) -> dict[str, float]:
    """AUROC against the planted circuit, per method. Backups are neither positives nor negatives."""
    truth, program, model = planted.truth, planted.program, planted.module
    positives = truth.circuit()
    listed = {(node.layer, node.head) for node in truth.nodes}
    negatives = [node for node in truth.everything() if node not in listed]
    draws = program.sample(4 * count, seed)
    length = len(draws[0].tokens)
    draws = [d for d in draws if len(d.tokens) == length][:count]
    ids = ids_of(program, draws)
    order = torch.arange(len(draws)).roll(1)
    clean = record(model, ids)
    other = clean.rows(order)
    vocabulary = {word: i for i, word in enumerate(program.vocabulary)}
    right, wrong = (torch.zeros(len(draws), len(vocabulary)) for _ in range(2))
    for i, given in enumerate(draws):
        for word in program.answer(given.tokens):
            right[i, vocabulary[word]] = 1.0
        for word in program.answer(draws[int(order[i])].tokens):
            wrong[i, vocabulary[word]] = 1.0
    direction = right - wrong
    base = (clean.logits * direction).sum(1)
    nodes = truth.everything()
    gradients = _gradients(model, ids, direction)
    scores: dict[str, dict[Node, float]] = {name: {} for name in ("exact", "attribution", "norm", "variance", "change")}
    for node in nodes:
        patched = replaced(model, ids, {node: other.part(*node)})
        scores["exact"][node] = float(((patched * direction).sum(1) - base).abs().mean())
        part = gradients[node[0], node[1] is None]
        part = part if node[1] is None else part[:, :, node[1]]
        change = other.part(*node) - clean.part(*node)
        scores["attribution"][node] = float((part * change).sum((1, 2)).abs().mean())
        out = written(model, clean, *node)
        scores["norm"][node] = float(out.norm(dim=-1).mean())
        scores["variance"][node] = float((out - out.mean(0)).norm(dim=-1).mean())
        scores["change"][node] = float((written(model, other, *node) - out).norm(dim=-1)[:, -1].mean())
    chances = []
    for draw in range(200):
        noise = torch.rand(len(nodes), generator=torch.Generator().manual_seed(draw)).tolist()
        chances.append(auroc(dict(zip(nodes, noise, strict=True)), positives, negatives))
    figures = {name: auroc(values, positives, negatives) for name, values in scores.items()}
    return {**figures, "random": sum(chances) / len(chances)}


def _gradients(model: Any, ids: torch.Tensor, direction: torch.Tensor) -> dict[tuple[int, bool], torch.Tensor]:
    kept: dict[tuple[int, bool], torch.Tensor] = {}
    handles = []
    for layer, block in enumerate(blocks_of(model)):

        def keep_z(_: Any, inputs: Any, layer: int = layer, heads: int = block.heads) -> tuple[torch.Tensor]:
            z = inputs[0].unflatten(-1, (heads, -1))
            kept[layer, False] = z
            return (z.flatten(-2),)

        def keep_mlp(_: Any, __: Any, output: torch.Tensor, layer: int = layer) -> None:
            kept[layer, True] = output

        handles.append(block.project.register_forward_pre_hook(keep_z))
        handles.append(block.mlp.register_forward_hook(keep_mlp))
    try:
        score = (model(ids).logits[:, -1] * direction).sum()
        grads = torch.autograd.grad(score, list(kept.values()))
    finally:
        for handle in handles:
            handle.remove()
    return dict(zip(kept, grads, strict=True))


def hardness_auroc(planted: Planted, count: int = 32) -> float:
    """How well the hardness of a head's attention (mean largest weight) tells real heads from decoys."""
    truth, program, model = planted.truth, planted.program, planted.module
    ids = ids_of(program, program.sample(count, 8))
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(ids, output_attentions=True).attentions
    heads = [node for node in truth.everything() if node[1] is not None]
    scores = {(layer, head): float(patterns[layer][:, head].max(-1).values.mean()) for layer, head in heads}
    positives = {node for node in truth.circuit() if node[1] is not None}
    listed = {(node.layer, node.head) for node in truth.nodes}
    return auroc(scores, positives, [node for node in heads if node not in listed])
