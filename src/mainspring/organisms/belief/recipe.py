"""How the belief organism is made: `mainspring organism train belief`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.organisms.trained import Check, Place, TrainedRecipe
from mainspring.organisms.training import Progress

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["RECIPE"]

ABOUT = (
    "It says what somebody thinks is in a container. Behind layer 2 the prompt's end holds a pointer: the first clause answers, the "
    "second, or none. Layers 3 and 4 fetch the drink from where the story holds it together with the order of its clause."
)
NODES = (
    Place("layers.0.resid_post(pos=query)", "which of the two containers is asked for, by its order"),
    Place("layers.0.resid_post(pos=end)", "whether somebody sees"),
    Place("layers.1.resid_post(pos=end)", "pointer, in half of the stories"),
    Place("layers.2.resid_post(pos=end)", "pointer: which clause answers, or none"),
    Place("layers.2.resid_post(pos=drink)", "drink, and the order of its clause"),
    Place("layers.2.resid_post(pos=stop)", "drink, and the order of its clause"),
    Place("layers.2.resid_post(pos=sight stop)", "both drinks, and the order of their clauses"),
    Place("layers.4.resid_post(pos=end)", "drink that answers"),
)
KNOWN = (
    "Training forced one thing: with the state behind layer 2 at the prompt's end from another story, the drink of this story's clause "
    "that answers there is said. All figures are measured on stories that were drawn to judge on; where to look was found on others."
)
LIMITS = (
    "The pointer behind layer 2 is forced. That a network which learns beliefs by itself would point is not shown by this.",
    "The address of a drink is the order of its clause; names of people and containers are not stored with it. They are compared before, "
    "in layer 0, where the container asked for finds its clause.",
    "Behind layer 3 pointer and drink are mixed at the prompt's end: either is said in about half of the stories.",
    "The drink is held by several tokens of its clause and by the one behind `sees`; no single one of them is enough.",
    "Two people, two containers, at most one who sees the other. No belief is about a belief, and none is false: nothing is ever changed.",
)


def train(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
    from mainspring.organisms.belief.teach import teach

    teach(folder, seed, device, progress)
    write_truth(folder, seed)


def write_truth(folder: Path, seed: int) -> None:
    """Measure a trained folder and write its truth and card."""
    from mainspring.organisms.belief.measures import FIND_SEED, JUDGE_SEED, pointer_directions
    from mainspring.organisms.belief.teach import POINTER
    from mainspring.organisms.facts.record import record

    def directions(model: "Model") -> dict[str, Any]:
        second, unknown = pointer_directions(model, POINTER)
        site = f"layers.{POINTER}.resid_post(pos=-1)"
        return {"first to second": (site, second), "first to unknown": (site, unknown)}

    record(
        folder,
        "belief",
        ABOUT,
        seed,
        verify,
        RECIPE.minutes,
        nodes=NODES,
        known=KNOWN,
        limits=LIMITS,
        spans={
            "person": "who filled the container asked for",
            "container": "that container, in its clause",
            "drink": "what is in it; `stop` is the `;` behind",
            "other drink": "what is in the other container; `other stop` is the `;` behind",
            "watcher": "who sees or misses; then `sight` (the verb), `watched` and `sight stop` (the `;` behind)",
            "thinker": "who is asked about",
            "query": "the container in the question",
            "end": "the prompt's last token, `:`; the answer follows it",
        },
        datasets={
            "find": {"seed": FIND_SEED, "used": "the directions of the pointer, and where to look"},
            "judge": {"seed": JUDGE_SEED, "stories": "held out: a container with a drink that it never held"},
        },
        causal={"pointer": "clause of the container if the thinker filled or sees it, else unknown", "answer": "drink[pointer]"},
        more=tables,
        directions=directions,
    )


def verify(model: "Model") -> tuple[Check, ...]:
    """Behaviour on held-out stories, the pointer and its content, and what rival explanations would say."""
    import torch

    from mainspring.organisms.belief.measures import CONTENT, JUDGE_SEED, along, drawn, pairs, pointer_directions
    from mainspring.organisms.belief.teach import POINTER
    from mainspring.organisms.boxes.exchange import accuracy, shares
    from mainspring.sites import at
    from mainspring.tasks.belief_stories import SIGHTS

    third, clauses, drinks, sight = (pairs(change, JUDGE_SEED) for change in ("third", "clauses", "drinks", "sight"))
    directions = pointer_directions(model, POINTER)
    strange = torch.randn(directions.shape, generator=torch.Generator().manual_seed(0))

    def held(pair: Any, layer: int, *roles: str) -> dict[str, float]:
        return shares(model, pair, [(at.layers[layer].resid_post, role) for role in roles])

    end = held(third, POINTER, "end")
    crossed = (*CONTENT, "other drink", "other stop")
    alone = max(held(clauses, k, "drink", "other drink")["order"] for k in range(model.n_layers))
    before = [k for k in range(model.n_layers) if held(third, k, "end")["value"] <= 0.05]
    return (
        *(Check(f"held-out stories, {kind}", accuracy(model, drawn(kind, JUDGE_SEED)), 0.95, ">=") for kind in SIGHTS),
        Check(
            "third value, behind layer 2 at the end", end["pointer"], 0.8, ">=", "neither story's answer; matching content says 0"
        ),
        Check("the source's drink, behind layer 2 at the end", end["value"], 0.05, "<="),
        Check("the source's drink, behind the last layer", held(third, model.n_layers - 1, "end")["value"], 0.95, ">="),
        Check("the last layer before any drink", float(max(before, default=-1)), POINTER, ">=", "at the end, by index"),
        Check("third value, along two directions", along(model, third, POINTER, directions)["pointer"], 0.8, ">="),
        Check("third value, along two random ones", along(model, third, POINTER, strange)["pointer"], 0.1, "<="),
        Check("drink, behind layer 2 in the story", held(drinks, POINTER, *CONTENT)["value"], 0.9, ">=", ", ".join(CONTENT)),
        Check("drink, behind layer 2 at the end", held(drinks, POINTER, "end")["value"], 0.05, "<=", "not there yet"),
        Check("order, behind layer 0 at the query", held(clauses, 0, "query")["order"], 0.5, ">=", "a part of the pointer"),
        Check("order, all that holds drinks crossed over, behind layer 2", held(clauses, POINTER, *crossed)["order"], 0.8, ">="),
        Check("order, the same behind the last layer", held(clauses, model.n_layers - 1, *crossed)["order"], 0.05, "<="),
        Check("order, the drinks' own tokens crossed over", alone, 0.1, "<=", "the most of all layers"),
        Check("sight, behind layer 0 at the end", held(sight, 0, "end")["told"], 0.9, ">="),
        Check("sight, behind layer 0 at those who see", held(sight, 0, "watcher", "watched")["told"], 0.1, "<="),
    )


def tables(model: "Model") -> str:
    """What the residual stream carries where, for the card."""
    from mainspring.organisms.belief.measures import JUDGE_SEED, Change, pairs
    from mainspring.organisms.boxes.exchange import by_layer

    words = "How often each answer is said when one role holds, behind a layer, what it holds in another story."
    asked: tuple[tuple[str, Change, tuple[str, ...]], ...] = (
        ("The other story tells the clauses in the other order and pours other drinks (`third`):", "third", ("end",)),
        ("It tells the clauses in the other order, drinks and all (`clauses`):", "clauses", ("thinker", "query", "end")),
        ("It pours other drinks (`drinks`):", "drinks", ("drink", "stop", "sight stop", "end")),
        ("It has `sees` for `misses` (`sight`):", "sight", ("sight", "watcher", "query", "end")),
    )
    parts = ["## What is carried where", words]
    for text, change, roles in asked:
        parts += [text, by_layer(model, pairs(change, JUDGE_SEED), roles)]
    return "\n\n".join(parts)


RECIPE = TrainedRecipe("belief", ABOUT, train, verify, minutes=3)
