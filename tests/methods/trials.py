"""How each method is tried: on which organism, against which control, and with which thing wrong."""

from dataclasses import replace
from functools import cache, partial

import torch

import mainspring as ms
from find.planted import batch, model, planted
from mainspring import at
from mainspring.find.direct import direct_logit_attribution
from mainspring.find.gaze import gaze_heads
from mainspring.find.induction import induction_heads, previous_token_heads
from mainspring.find.lens import Lens, logit_lens
from mainspring.find.patching import activation_patching, attribution_patching
from mainspring.find.sinks import Sinks, attention_sinks
from mainspring.measure.heads import Heads
from mainspring.measure.localisation import auroc
from mainspring.measure.nulls import activation_norm
from mainspring.methods import Trial
from mainspring.tasks.comic_strips import comics

ROWS = 8


def values(scores):
    return scores.values


def constant(scores, value):
    """Scores that say the same everywhere: what a control of one number amounts to."""
    return replace(scores, values=torch.full_like(scores.values, value), controls={})


def averaged(run, rows):
    """The mean over runs of a row each: what all rows together must give."""
    each = [run(row) for row in rows]
    return replace(each[0], values=torch.stack([scores.values for scores in each]).mean(0))


def places(name, parts):
    """Heads and MLPs, as places of a table of scores."""
    return Heads.of(model(name), mlps=True).choose(set(parts)).places


def working(name):
    """The planted parts that work."""
    return places(name, planted(name).truth.circuit())


def of(name, variable):
    """The parts that carry a variable."""
    return places(name, [(n.layer, n.head) for n in planted(name).truth.nodes if n.variable == variable and n.role == "real"])


def patching(function):
    rows = batch().take(range(ROWS))
    run = partial(function, reduce="absolute")
    return Trial(
        open=model,
        run=lambda on: run(on, rows),
        control=lambda on: activation_norm(on, rows),
        poison=lambda on: run(on, replace(rows, other=rows), metric=rows.metric()),  # patched from the text itself
        score=lambda scores: auroc(scores, working("recall")),
        bar=0.99,
        numbers=values,
        others={"row by row": lambda on: averaged(lambda i: run(on, rows.take([i])), range(ROWS))},
    )


def writers():
    """Parts with an edge into the logits."""
    truth = planted("select-add").truth
    sources = {edge.source for edge in truth.edges if edge.target == "logits"}
    return places("select-add", [(n.layer, n.head) for n in truth.nodes if n.id in sources and n.role == "real"])


def unclaimed():
    """Planted parts that are no writers, and that patching could not see either."""
    listed = places("select-add", [(n.layer, n.head) for n in planted("select-add").truth.nodes])
    return [place for place in listed if place not in writers() and place not in working("select-add")]


def direct():
    rows = batch("select-add").take(range(ROWS))

    def run(on, b=rows, pos=-1):
        return direct_logit_attribution(on, b, metric=b.metric("answer_difference"), pos=pos)

    return Trial(
        open=lambda: model("select-add"),
        run=run,
        control=lambda on: activation_norm(on, rows),
        poison=lambda on: run(on, pos=-2),  # the shares of another position
        score=lambda scores: auroc(scores, writers(), unclaimed()),
        bar=0.99,
        numbers=values,
        others={"row by row": lambda on: averaged(lambda i: run(on, rows.take([i])), range(ROWS))},
    )


def induction():
    rows = torch.tensor(batch().inputs[:ROWS])
    run = partial(induction_heads, pos=-1)
    return Trial(
        open=model,
        run=lambda on: run(on, rows),
        control=lambda on: constant(run(on, rows), run(on, rows).controls["uniform"]),
        poison=lambda on: previous_token_heads(on, rows),  # looks for what stands before, not for what followed
        score=lambda scores: max(scores[place] for place in of("recall", "found")),
        bar=0.9,
        numbers=values,
        others={"row by row": lambda on: averaged(lambda row: run(on, row[None]), rows)},
    )


def previous_token():
    rows = torch.tensor(batch().inputs[:ROWS])
    return Trial(
        open=model,
        run=lambda on: previous_token_heads(on, rows),
        control=lambda on: constant(previous_token_heads(on, rows), previous_token_heads(on, rows).controls["uniform"]),
        poison=lambda on: induction_heads(on, rows, pos=-1),
        score=lambda scores: auroc(scores, of("recall", "previous")),
        bar=0.99,
        numbers=values,
        others={"row by row": lambda on: averaged(lambda row: previous_token_heads(on, row[None]), rows)},
    )


def lens():
    rows = batch()
    layer = max(place[0] for place in of("recall", "result"))

    def settled(found: Lens):
        """In which share of rows the answer is readable from the layer that writes it, and from no earlier one."""
        return float((found.settled(rows.answers) == layer).double().mean())

    def joined(each):
        return replace(each[0], logprobs=torch.cat([one.logprobs for one in each], dim=1))

    return Trial(
        open=model,
        run=lambda on: logit_lens(on, rows.inputs),
        control=lambda on: replace(found := logit_lens(on, rows.inputs), logprobs=found.logprobs.roll(1, 1)),
        poison=lambda on: logit_lens(on, rows.inputs, pos=-2),
        score=settled,
        bar=0.7,
        numbers=lambda found: found.logprobs,
        others={"row by row": lambda on: joined([logit_lens(on, [row]) for row in rows.inputs])},
    )


SINKS = {(0, 1), (1, 2), (2, 0)}


def sinks():
    """The first token is made a sink of three heads."""
    rows = batch().inputs[:ROWS]
    edits = [at.layers[layer].attn.scores(head=head, key=0).add(1000.0) for layer, head in SINKS]

    def found(result: Sinks):
        return auroc(result.received, list(SINKS))

    def each(on):
        alone = [attention_sinks(on, [row], edits=edits) for row in rows]
        received = averaged(lambda one: one.received, alone)
        return replace(alone[0], received=received)

    def elsewhere(on):
        result = attention_sinks(on, rows, edits=edits)
        return replace(result, received=replace(result.received, values=result.received.controls["elsewhere"]))

    return Trial(
        open=model,
        run=lambda on: attention_sinks(on, rows, edits=edits),
        control=elsewhere,
        poison=lambda on: attention_sinks(on, rows, edits=edits, position=2),
        score=found,
        bar=0.99,
        numbers=lambda result: result.received.values,
        others={"row by row": each},
    )


@cache
def strips():
    return ms.load("organism:comics"), comics(6).split("find")


def gaze():
    _, items = strips()

    def earlier(on):
        found = gaze_heads(on, items)
        return replace(found, values=found.controls["one token earlier"])

    def shuffled(on):
        found = gaze_heads(on, items)
        return replace(found, values=found.controls["shuffled labels"])

    return Trial(
        open=lambda: strips()[0],
        run=lambda on: gaze_heads(on, items),
        control=shuffled,
        poison=earlier,
        score=lambda scores: scores.ranked()[0].value,
        bar=0.45,
        numbers=values,
        others={"in small batches": lambda on: gaze_heads(on, items, batch=5)},
    )


TRIALS = {
    "find.activation_patching": partial(patching, activation_patching),
    "find.attention_sinks": sinks,
    "find.attribution_patching": partial(patching, attribution_patching),
    "find.direct_logit_attribution": direct,
    "find.gaze_heads": gaze,
    "find.induction_heads": induction,
    "find.logit_lens": lens,
    "find.previous_token_heads": previous_token,
}
