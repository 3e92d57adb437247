"""How the boxes organism is made: `mainspring organism train boxes`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.organisms.trained import Check, Place, TrainedRecipe
from mainspring.organisms.training import Progress

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["RECIPE"]

ABOUT = (
    "It says what lies in a box. Layer 0 binds object and box at the end of each clause, and takes the box asked for to the prompt's end; "
    "layer 1 fetches the object that is bound to that box. No part carries the place of a clause in the story."
)
KNOWN = (
    "By exchange between two stories that differ in everything (`free`): base answer, place of the clause, label of the box and the "
    "object itself each give another answer. Heads were chosen on stories to find on, and all figures are of stories to judge on."
)
LIMITS = (
    "A guide in the first third of the training decodes layer 0: without one, a thousand steps do not leave the plateau. It says where "
    "the object and the box asked for may be known, and is gone for the rest of the training.",
    "Nothing here points: a method that looks for ordering by place should find none. The belief organism has a pointer.",
    "Layers 2 and 3 are not needed, yet not silent: MLPs of layers 1 to 3 repeat the object, and exchanged together they say it alone.",
    "The work of fetching is shared by heads of layer 1, of which each alone does little.",
    "A story has one move at most, and boxes are never empty. Every clause has the same four words.",
)


def train(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
    from mainspring.organisms.boxes.teach import teach

    teach(folder, seed, device, progress)
    write_truth(folder, seed)


def write_truth(folder: Path, seed: int) -> None:
    """Measure a trained folder and write its truth and card."""
    from mainspring.models.load import load
    from mainspring.organisms.boxes.measures import BINDING, FIND_SEED, JUDGE_SEED, smallest
    from mainspring.organisms.facts.record import record

    model = load(folder)
    asking, fetching = smallest(model, 0, "label"), smallest(model, 1, "value")
    nodes = (
        *(Place(f"layers.0.attn.out(pos={role})", "object, bound to its box") for role in BINDING),
        *(Place(f"layers.0.attn.z(head={head},pos=end)", "label of the box asked for") for head in asking),
        *(Place(f"layers.1.attn.z(head={head},pos=end)", "object") for head in fetching),
    )
    record(
        folder,
        "boxes",
        ABOUT,
        seed,
        verify,
        RECIPE.minutes,
        nodes=nodes,
        known=KNOWN,
        limits=LIMITS,
        spans={
            "object": "the object of the clause that answers",
            "label": "the box of that clause",
            "stop": "the `;` at its end",
            "query": "the box in the question",
            "end": "the prompt's last token, `:`; the object follows it",
        },
        datasets={
            "find": {"seed": FIND_SEED, "used": "which heads carry label and object"},
            "judge": {"seed": JUDGE_SEED, "stories": "held out: the answer lies in a box where it never lay"},
        },
        causal={"answer": "what lies last in the box asked for"},
        more=tables,
    )


def verify(model: "Model") -> tuple[Check, ...]:
    """Behaviour on held-out stories, what is carried where, and that the explanations which behave alike are told apart."""
    from mainspring.organisms.boxes.exchange import accuracy, shares
    from mainspring.organisms.boxes.measures import BINDING, JUDGE_SEED, pairs, smallest, worst
    from mainspring.sites import at

    thing, free = pairs("thing", JUDGE_SEED), pairs("free", JUDGE_SEED)
    behind = at.layers[0].resid_post
    asking, fetching = (smallest(model, layer, answer) for layer, answer in ((0, "label"), (1, "value")))

    def heads(layer: int, which: object) -> dict[str, float]:
        return shares(model, free, [(at.layers[layer].attn.z(head=which), "end")])

    def at_end(layer: int) -> dict[str, float]:
        return shares(model, free, [(at.layers[layer].resid_post, "end")])

    left = {
        layer: [h for h in range(model.config.num_attention_heads) if h not in which]
        for layer, which in ((0, asking), (1, fetching))
    }
    late = [part for layer in range(2, model.n_layers) for part in (at.layers[layer].attn.out, at.layers[layer].mlp.out)]
    found = [at.layers[layer].attn.z(head=list(which)) for layer, which in ((0, asking), (1, fetching))]

    def without(parts: list[Any]) -> float:
        return accuracy(model, free.base, [part(pos=-1).ablate("mean", over=("batch",)) for part in parts])

    return (
        Check("held-out stories", worst(model, "told"), 0.95, ">=", "the worst of 3, 5 and 7 objects"),
        Check("held-out stories with a move", worst(model, "moved"), 0.95, ">=", "the worst of 3, 5 and 7 objects"),
        Check(
            "object, behind layer 0 at label and stop", shares(model, thing, [(behind, r) for r in BINDING])["value"], 0.9, ">="
        ),
        Check("object, behind layer 0 at the object itself", shares(model, thing, [(behind, "object")])["value"], 0.1, "<="),
        Check(
            "label, behind layer 0 at the end", at_end(0)["label"], 0.9, ">=", "the base's object in the box the source asks for"
        ),
        Check("object, behind layer 1 at the end", at_end(1)["value"], 0.9, ">=", "the source's object"),
        Check("place, at the end", max(at_end(k)["place"] for k in range(model.n_layers)), 0.05, "<=", "the most of all layers"),
        Check("label, found heads of layer 0", heads(0, list(asking))["label"], 0.9, ">=", f"heads {_listed(asking)}"),
        Check("label, all other heads of layer 0", heads(0, left[0])["label"] if left[0] else 0.0, 0.1, "<="),
        Check("object, found heads of layer 1", heads(1, list(fetching))["value"], 0.9, ">=", f"heads {_listed(fetching)}"),
        Check("object, all other heads of layer 1", heads(1, left[1])["value"] if left[1] else 0.0, 0.1, "<="),
        Check("right without layers 2 and 3", without(late), 0.95, ">=", "means over stories at the end"),
        Check("right without the found heads of layer 0", without(found[:1]), 0.3, "<=", "chance 0.2"),
        Check("right without the found heads of layer 1", without(found[1:]), 0.3, "<=", "chance 0.2"),
    )


def tables(model: "Model") -> str:
    """What the residual stream carries where, for the card."""
    from mainspring.organisms.boxes.exchange import by_layer
    from mainspring.organisms.boxes.measures import JUDGE_SEED, pairs

    words = "How often each answer is said when one role holds, behind a layer, what it holds in another story."
    parts = ["## What is carried where", words, "The other story has other objects:"]
    parts += [by_layer(model, pairs("thing", JUDGE_SEED), ("object", "label", "stop", "end")), "It asks for another box:"]
    parts += [by_layer(model, pairs("query", JUDGE_SEED), ("query", "end")), "It differs in everything (`free`):"]
    return "\n\n".join([*parts, by_layer(model, pairs("free", JUDGE_SEED), ("end",))])


def _listed(heads: Sequence[int]) -> str:
    return ", ".join(str(head) for head in heads)


RECIPE = TrainedRecipe("boxes", ABOUT, train, verify, minutes=3)
