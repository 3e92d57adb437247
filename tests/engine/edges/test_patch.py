"""Exact edge patching against the same models written out by hand: every kind of edge, whole sets, positions, batches,
padding."""

import random

import pytest
import torch

import mainspring as ms
from engine.edges.hand import HEADS, KV, VOCAB, Hand, build
from engine.tiny import fingerprint, hooks_on, left_padded
from mainspring import at
from mainspring.engine.edges.names import Edge, Receiver, Sender
from mainspring.engine.edges.senders import Shares

FAMILIES = tuple(KV)
families = pytest.mark.parametrize("family", FAMILIES)


def texts(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, VOCAB, (n,), generator=generator).tolist() for n in lengths]


CLEAN, OTHER = texts(6, seed=1)[0], texts(6, seed=2)[0]


def ours(edge, pos=None):
    sender, receiver = edge
    return Edge(Sender(*sender), Receiver(*receiver), pos)


def error(a, b):
    return float((a - b).abs().max() / b.abs().max())


def model_of(family):
    return ms.wrap(build(family))


@families
def test_the_hand_written_model_is_the_model(family):
    logits, _ = Hand(family).run(CLEAN)
    assert error(build(family)(torch.tensor([CLEAN])).logits[0].detach(), logits) < 1e-5


@families
def test_the_graph_has_the_edges_that_the_model_has(family):
    assert set(model_of(family).graph().edges) == {ours(e) for e in Hand(family).edges()}


@families
def test_single_edges_of_every_kind(family):
    """For each receiver input one sender of each kind."""
    hand, model, rng = Hand(family), model_of(family), random.Random(5)
    chosen = {(receiver, sender[0]): (sender, receiver) for sender, receiver in rng.sample(hand.edges(), len(hand.edges()))}
    other, clean = Shares.of(model, [OTHER]), hand.run(CLEAN)[0]
    moved, worst = 0.0, 0.0
    for edge in chosen.values():
        found = model.patch_edges([CLEAN], [ours(edge)], other).logits[0]
        want = hand.patched(CLEAN, OTHER, [edge])
        worst, moved = max(worst, error(found, want)), max(moved, error(want, clean))
    assert worst < 1e-5
    assert moved > 0.05


@families
def test_whole_sets_of_edges(family):
    hand, model, rng = Hand(family), model_of(family), random.Random(0)
    for share in (0.1, 0.5, 0.9):
        edges = [e for e in hand.edges() if rng.random() < share]
        found = model.patch_edges([CLEAN], map(ours, edges), [OTHER]).logits[0]
        assert error(found, hand.patched(CLEAN, OTHER, edges)) < 1e-5


@families
def test_no_edge_changes_nothing_and_all_edges_are_the_other_run(family):
    model = model_of(family)
    clean, other = model.run([CLEAN]).logits, model.run([OTHER]).logits
    assert torch.equal(model.patch_edges([CLEAN], [], [OTHER]).logits, clean)
    assert error(model.patch_edges([CLEAN], "* -> *", [OTHER]).logits, other) < 1e-5
    assert error(model.patch_edges([CLEAN], "* -> *", [CLEAN]).logits, clean) < 1e-5


@families
def test_shares_and_biases_are_the_stream(family):
    hand, model = Hand(family), model_of(family)
    shares = Shares.of(model, [CLEAN])
    for sender, value in hand.run(CLEAN)[1].items():
        assert error(shares[Sender(*sender)][0], value) < 1e-5
    stream = model.run([CLEAN], read=at.layers[1].resid_post)[at.layers[1].resid_post]
    assert error(sum(shares.values.values()) + sum(shares.biases), stream) < 1e-5


@families
def test_one_position_of_an_edge(family):
    hand, model = Hand(family), model_of(family)
    sent = hand.run(OTHER)[1]
    edges = [(("head", 0, 1), ("q", 1, 2)), (("mlp", 0), ("k", 1, 1)), (("embed",), ("v", 0, 0)), (("embed",), ("mlp", 1))]
    for edge in [*edges, (("head", 1, 3), ("logits",))]:
        for pos in (2, -1):

            def seen(receiver, sender, value, edge=edge, pos=pos):
                if (sender, receiver) != edge:
                    return value
                value = value.clone()
                value[pos] = sent[sender][pos]
                return value

            found = model.patch_edges([CLEAN], [ours(edge, pos)], [OTHER]).logits[0]
            assert error(found, hand.run(CLEAN, seen)[0]) < 1e-5


@families
@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_and_padding(family, side):
    hand, model, rng = Hand(family), model_of(family), random.Random(1)
    clean, other = texts(6, 3, 5, seed=3), texts(6, 3, 5, seed=4)
    edges = [e for e in hand.edges() if rng.random() < 0.4]
    inputs = clean if side == "right" else left_padded(clean)
    found = model.patch_edges(inputs, [ours(e) for e in edges], other)
    for i in range(3):
        start = found.rows.offsets[i]
        own = found.logits[i, start : start + len(clean[i])]
        assert error(own, hand.patched(clean[i], other[i], edges)) < 1e-5
    last = [("embed",), ("q", 1, 1)]
    found = model.patch_edges(inputs, [ours(last, -1)], other)
    alone = model.patch_edges([clean[1]], [ours(last, -1)], [other[1]])
    start = found.rows.offsets[1]
    assert error(found.logits[1, start : start + 3], alone.logits[0]) < 1e-5


@families
def test_the_other_run_may_be_a_trace_or_one_row_for_all(family):
    model = model_of(family)
    clean = texts(6, 6, 6, seed=12)
    want = model.patch_edges(clean, "*.head.* -> layers.1.*", [OTHER] * 3).logits
    trace = model.run([OTHER], read=Shares.sites(model))
    for other in ([OTHER], trace, Shares.from_trace(model, trace)):
        assert error(model.patch_edges(clean, "*.head.* -> layers.1.*", other).logits, want) < 1e-6


@families
def test_zero_and_mean(family):
    hand, model, rng = Hand(family), model_of(family), random.Random(2)
    edges = [e for e in hand.edges() if rng.random() < 0.3]
    given, chosen = [ours(e) for e in edges], set(edges)
    zero = hand.run(CLEAN, lambda r, s, v: torch.zeros_like(v) if (s, r) in chosen else v)[0]
    assert error(model.patch_edges([CLEAN], given, "zero").logits[0], zero) < 1e-5
    reference = texts(6, 4, 7, seed=5)
    sent = [hand.run(text)[1] for text in reference]
    flat = {s: torch.cat([run[s] for run in sent]).mean(0) for s in sent[0]}
    want = hand.run(CLEAN, lambda r, s, v: flat[s].expand_as(v) if (s, r) in chosen else v)[0]
    assert error(model.patch_edges([CLEAN], given, "mean", reference=reference).logits[0], want) < 1e-5

    def at_position(s, p):
        return torch.stack([run[s][p] for run in sent if p < len(run[s])]).mean(0)

    placed = {s: torch.stack([at_position(s, p) for p in range(6)]) for s in flat}
    want = hand.run(CLEAN, lambda r, s, v: placed[s] if (s, r) in chosen else v)[0]
    found = model.patch_edges([CLEAN], given, "mean", reference=reference, over=("batch",))
    assert error(found.logits[0], want) < 1e-5


def test_a_key_value_head_is_one_receiver_of_its_group():
    model = model_of("llama")
    graph = model.graph()
    assert graph.edge("embed -> layers.1.head.3.k") == graph.edge("embed -> layers.1.kv_head.1.k")
    patched = model.patch_edges([CLEAN], "embed -> layers.1.kv_head.1.v", [OTHER], read=at.layers[1].attn.z)
    clean = model.run([CLEAN], read=at.layers[1].attn.z)
    same = [torch.equal(patched[at.layers[1].attn.z(head=h)], clean[at.layers[1].attn.z(head=h)]) for h in range(HEADS)]
    assert same == [True, True, False, False]


@families
def test_the_model_is_left_as_it_was(family):
    model = model_of(family)
    before = fingerprint(model.module)
    model.patch_edges([CLEAN], "* -> *.q", [OTHER])
    assert fingerprint(model.module) == before
    assert hooks_on(model.module) == []


@pytest.mark.parametrize(
    "poison", ["mlp before attention", "next layer", "own layer", "doubled", "wrong head", "no grouping", "bias sent"]
)
def test_wrong_graphs_are_told_apart(poison):
    """The oracle with one classical mistake does not agree with exact patching: the checks above would catch the mistake."""
    family = "llama"
    hand, model, rng = Hand(family), model_of(family), random.Random(3)
    edges = {e for e in hand.edges() if rng.random() < 0.5} | {(("head", 0, 1), ("mlp", 0)), (("mlp", 0), ("q", 1, 1))}
    edges |= {(("head", 0, 0), ("k", 1, 0)), (("embed",), ("logits",)), (("head", 0, 2), ("logits",))}
    edges -= {(("mlp", 0), ("logits",)), (("head", 0, 2), ("k", 1, 0)), (("head", 0, 0), ("k", 1, 1))}
    sent = hand.run(OTHER)[1]

    def seen(receiver, sender, value):
        inside = (sender, receiver) in edges
        if poison == "mlp before attention" and sender[0] == "head" and receiver == ("mlp", sender[1]):
            inside = False
        if poison == "next layer" and sender == ("mlp", 0) and receiver[0] != "logits" and receiver[1] == 1:
            inside = False
        if poison == "own layer" and sender[0] == "head" and len(receiver) > 1 and receiver[1] == 1:
            inside = (("head", sender[1], (sender[2] + 1) % HEADS), receiver) in edges
        if poison == "wrong head" and receiver[0] == "q":
            inside = (sender, ("q", receiver[1], (receiver[2] + 1) % HEADS)) in edges
        if poison == "no grouping" and receiver[0] in "kv":
            inside = (sender, (receiver[0], receiver[1], 0)) in edges
        other = sent[sender]
        if poison == "bias sent" and sender[0] == "head" and sender[2] == 0:
            other = other + hand.attention_bias(sender[1])
        if poison == "doubled" and receiver == ("logits",) and inside:
            return 2 * other - value
        return other if inside else value

    found = model.patch_edges([CLEAN], map(ours, edges), [OTHER]).logits[0]
    assert error(found, hand.patched(CLEAN, OTHER, edges)) < 1e-5
    assert error(found, hand.run(CLEAN, seen)[0]) > 1e-3
