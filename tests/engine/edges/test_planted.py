"""Edges of an organism whose wiring is known: exact patching finds those that were planted, and no others."""

from functools import cache

import torch

import mainspring as ms
from mainspring.engine.edges.circuit import Circuit
from mainspring.engine.edges.paths import edge_effects
from mainspring.organisms import plant, recipe


@cache
def organism():
    """The model, its program, the planted edges, and those of them that change from text to text."""
    shipped = recipe("recall")
    planted = plant(shipped.program(), host="gpt2", disguise=shipped.disguise, seed=0, measure=False)
    model = ms.wrap(planted.module.eval(), tokenizer=planted.tokenizer)
    graph = model.graph()
    wired = {}
    for e in planted.truth.edges:
        part = "" if e.via in ("mlp", "logits") else f".{e.via}"
        wired[e] = graph.edge(f"{e.source} -> {e.target}{part}")
    return model, planted.program, wired


def texts(seed, count=8):
    model, program, _ = organism()
    draws = program.sample(count, seed=seed)
    ids = [[model.tokenizer.convert_tokens_to_ids(word) for word in draw.tokens] for draw in draws]
    answers = [model.tokenizer.convert_tokens_to_ids(next(iter(program.answer(draw.tokens)))) for draw in draws]
    return ids, torch.tensor(answers)


def log_probability(answers):
    return lambda trace: trace.logits[:, -1].log_softmax(-1).gather(1, answers[:, None])[:, 0]


def auroc(strength, found, planted):
    inside = [float(x) for x, e in zip(strength, found, strict=True) if e in planted]
    outside = [float(x) for x, e in zip(strength, found, strict=True) if e not in planted]
    return sum((a > b) + 0.5 * (a == b) for a in inside for b in outside) / (len(inside) * len(outside))


def test_mean_patching_ranks_every_planted_edge_first():
    model, _, wired = organism()
    ids, answers = texts(1)
    scores = edge_effects(model, ids, "mean", log_probability(answers), reference=texts(2, 24)[0])
    strength = scores.values.abs().mean(1)
    assert auroc(strength, scores.edges, set(wired.values())) == 1.0
    assert auroc(torch.rand(len(scores), generator=torch.Generator().manual_seed(0)), scores.edges, set(wired.values())) < 0.8
    circuit = Circuit.from_scores(model, scores, len(set(wired.values())), ablation="mean", sign="negative")
    assert set(circuit.edges) == set(wired.values())
    run = circuit.run(model, ids, reference=texts(2, 24)[0])
    assert bool((run.logits[:, -1].argmax(-1) == answers).all())


def test_resampling_finds_the_edges_that_differ_from_text_to_text():
    """What is the same in every text (where the tokens stand, that the second is a mode) cannot be told by exchanging texts."""
    model, _, wired = organism()
    ids, answers = texts(1)
    still = {edge for e, edge in wired.items() if e.variable == "position" or (e.via == "k" and e.target == "layers.0.head.0")}
    moving = set(wired.values()) - still
    metric = log_probability(answers)
    exact = edge_effects(model, ids, texts(5)[0], metric).values.abs().mean(1)
    edges = model.graph().edges
    told = [i for i, e in enumerate(edges) if e not in still]
    assert auroc(exact[told], [edges[i] for i in told], moving) == 1.0
    guess = model.attribute_edges(ids, texts(5)[0], metric).values.abs().mean(1)
    assert auroc(guess[told], [edges[i] for i in told], moving) > 0.9
