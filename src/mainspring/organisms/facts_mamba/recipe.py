"""How the Mamba twin of the facts organism is made: `mainspring organism train facts-mamba`."""

from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.organisms.trained import Check, Place, TrainedRecipe
from mainspring.organisms.training import Progress

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["RECIPE"]

ABOUT = "A Mamba that says the object of the same 640 facts as `facts`: looked up at the subject's last token, carried by the late scans."
NODES = (
    Place("layers.0.ssm.out(pos=last)", "facts of the subject"),
    Place("layers.1.ssm.out(pos=last)", "facts of the subject"),
    Place("layers.1.resid_post(pos=last)", "facts of the subject, all relations"),
    Place("layers.2.ssm.in(pos=last)", "facts of the subject, as later tokens hear them"),
    Place("layers.2.ssm.out(pos=end)", "object of the relation asked for"),
    Place("layers.3.ssm.out(pos=end)", "object of the relation asked for"),
)
KNOWN = (
    "By construction: layers 0 and 1 have no scan and see a token and the one before it; layers 2 and 3 have a constant gate, no "
    "convolution over tokens and no skip. In training, linear readers asked for facts at the last name. And measured: values from a prompt "
    "about another person, put in at one place; what later tokens hear of a token exchanged; output matrices changed by rank one."
)
LIMITS = (
    "Where facts are is forced, by what the mixers lack and by the linear readers. That a Mamba keeps them there is not shown by this: "
    "six whole layers, taught the prompts alone, learned facts anew for every shape (accuracy in held-out shapes 0.40) and kept them in no "
    "one place; whole late layers behind these early ones came to about 0.9.",
    "Facts are in the first half of the layers, not in the middle: there are four layers.",
    "How the two early mixers share the work, and how the two late ones do, is not forced; it differs from seed to seed.",
    "How well a linear reader does on new people differs too: a second training, with seed 1, read 0.87 of the objects and held every bar.",
    "An edit of a fact changes other facts of the same person too, more often than facts of others.",
    "The wrong token fails in the layers that keep facts, not in every layer: an edit of layer 3 at the prompt's end passes to most "
    "paraphrases.",
    "640 facts with objects of one token, five relations, four shapes of a prompt. It says nothing sensible to anything else.",
    "A person's other attributes are independent, so nothing follows from a fact: an edit of one cannot ripple.",
)


def train(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
    from mainspring.organisms.facts_mamba.teach import teach

    teach(folder, seed, device, progress)
    write(folder, seed)


def write(folder: Path, seed: int) -> None:
    """Measure, and write truth.json and card.md."""
    from mainspring.organisms.facts.measures import DATASETS, SPANS
    from mainspring.organisms.facts.record import record
    from mainspring.organisms.facts_mamba.tables import tables

    record(
        folder,
        "facts-mamba",
        ABOUT,
        seed,
        verify,
        RECIPE.minutes,
        nodes=NODES,
        known=KNOWN,
        limits=LIMITS,
        spans=SPANS,
        datasets={
            **DATASETS,
            "find": {"seed": DATASETS["find"]["seed"], "used": "the linear readers' subjects; which layer is edited"},
        },
        causal={"object": "FACTS[subject, relation]", "subject": "(first, last)"},
        more=tables,
    )


def verify(model: "Model") -> tuple[Check, ...]:
    """Behaviour on held-out prompts, the look-up and its way by interchange, the scan's terms, and facts rewritten."""
    from mainspring.organisms.facts.measures import JUDGE_SEED, accuracy, at_role, interchange, pairs, read_linearly, untaught
    from mainspring.organisms.facts_mamba.build import EARLY, LATE
    from mainspring.organisms.facts_mamba.editing import EDITED, drawn, edited
    from mainspring.organisms.facts_mamba.measures import apart, shares, told, trace
    from mainspring.sites import at
    from mainspring.tasks.facts import NEW_PREFIX

    every = (*EARLY, *LATE)
    strangers, namesakes = (pairs(kind, JUDGE_SEED, 32) for kind in ("stranger", "namesake"))
    early, shared = (interchange(model, given, at_role("last", EARLY, "ssm.out"))[0] for given in (strangers, namesakes))
    elsewhere = max(interchange(model, strangers, at_role(role, every, "ssm.out"))[0] for role in ("first", "about"))
    end = interchange(model, strangers, at_role("end", LATE, "ssm.out"))[0]
    traced = shares([trace(model, pair) for pair in strangers], strangers)
    both = traced[list(EARLY), 1].sum() + traced[list(LATE), 3].sum()
    facts = drawn(JUDGE_SEED, 12)
    at_last, at_first, at_end = (edited(model, facts, EDITED, role) for role in ("last", "first", "end"))
    retained = max(apart(model, pair.base.ids, layer) for pair in strangers for layer in every)
    return (
        Check("accuracy, held-out shapes", accuracy(model, untaught()), 0.95, ">=", "all 640 facts"),
        Check("accuracy, held-out shapes behind a new prefix", accuracy(model, untaught(NEW_PREFIX)), 0.95, ">="),
        Check("mixers 0 and 1 at last, strangers", early, 0.9, ">=", "the source's object is said"),
        Check("mixers 0 and 1 at last, namesakes", shared, 0.9, ">=", "they share the last name"),
        Check("all mixers at first or about", elsewhere, 0.1, "<=", "the more of two roles"),
        Check("mixers 2 and 3 at end", end, 0.9, ">=", "the way to the prompt's end"),
        Check(
            "effect at two sites",
            float(both),
            0.7,
            ">=",
            "last in the first half of the layers, end in the second; of all positive effect",
        ),
        Check(
            "last, as heard in layers 2 and 3", told(model, strangers, "last", LATE), 0.9, ">=", "its own states stay the base's"
        ),
        Check(
            "first, as heard from layer 1 on",
            told(model, strangers, "first", every[1:]),
            0.1,
            "<=",
            "its own states stay the base's",
        ),
        Check(
            "object read linearly at last",
            read_linearly(model, at.layers[EARLY[-1]].resid_post),
            0.8,
            ">=",
            "on other people; chance 0.1",
        ),
        Check("scan's terms summed, apart from ssm.y", retained, 1e-5, "<=", "the most, as a share of the largest entry"),
        Check(
            "edit of rank one: the fact rewritten", at_last.rewritten, 0.95, ">=", f"ssm.out of layer {EDITED} at last, 48 facts"
        ),
        Check("edit of rank one: paraphrases", at_last.paraphrases, 0.8, ">=", "three other shapes"),
        Check("edit of rank one: neighbours kept", at_last.neighbours, 0.8, ">=", "others who have the old object"),
        Check("edit at first: paraphrases", at_first.paraphrases, 0.2, "<=", "a wrong token; chance 0.1 and 0.1"),
        Check("edit at end: paraphrases", at_end.paraphrases, 0.2, "<=", "a wrong token; chance 0.1 and 0.1"),
    )


RECIPE = TrainedRecipe("facts-mamba", ABOUT, train, verify, minutes=4)
