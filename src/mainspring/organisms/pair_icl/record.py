"""The training of the pair-icl organism as a whole: teach, measure, and write what was found beside the weights."""

import time
from pathlib import Path

from mainspring.organisms.cards import trained_card
from mainspring.organisms.pair_icl.checks import FIND_SEED, JUDGE_SEED, find, verify
from mainspring.organisms.pair_icl.measures import accuracy, batch
from mainspring.organisms.pair_icl.teach import teach
from mainspring.organisms.trained import TrainedTruth
from mainspring.organisms.training import Progress
from mainspring.organisms.truth import Node

__all__ = ["ABOUT", "LIMITS", "MINUTES", "record", "train"]

ABOUT = "Functions told by examples or by name, items picked from lists by category, and labels that hold for one text."
MINUTES = 28
KNOWN = (
    f"Heads were chosen by interventions on prompts of seed {FIND_SEED} and judged on others (seed {JUDGE_SEED}). Functions, lists and "
    "labels were kept apart by a penalty in training, which says of no head what it is for."
)
LIMITS = (
    "Its world is 88 words in seven kinds of prompts without grammar.",
    "There are ten functions, all seen in training: it recognises a function from examples and does not learn one in context.",
    "Its second and its fourth layer have attention alone.",
    "Early in the training its first layer was also asked for the two tokens before each and for the function of an example, by linear "
    "readers that are thrown away. Labels were taught first and alone: among other tasks they stayed guessing one of the two.",
    "Heads behind the first layer were penalised for working on more than one of functions, lists and labels.",
    "A category makes all its items likelier by itself, and the filter heads add the one that is listed. So their queries, moved from "
    "another list, take the answer away and do not bring the other: what is said is of the first category still.",
    "Late in the training the sizes of heads were penalised, so that the work gathers in few heads; a large model spreads it more.",
)


def train(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
    """Make the organism in `folder`."""
    begun = time.monotonic()
    teach(folder, seed, device, progress)
    record(folder, seed, (time.monotonic() - begun) / 60)


def record(folder: Path, seed: int, minutes: float) -> None:
    """Measure, and write truth.json and card.md."""
    from mainspring.models.load import load

    model = load(folder)
    checks, found = verify(model), find(model)
    truth = TrainedTruth(
        organism="pair-icl",
        seed=seed,
        nodes=tuple(Node(layer, head, name) for name, group in found.items() for layer, head in group),
        edges=(),
        directions={},
        spans={"last": "the ':' before the answer", "place": "where the answer stands in a list or among labels: Batch.place"},
        datasets={
            "find": {"generator": "mainspring.tasks.pair_icl.draw", "seed": FIND_SEED},
            "judge": {"generator": "mainspring.tasks.pair_icl.draw", "seed": JUDGE_SEED},
        },
        known=KNOWN,
        checks=checks,
        limits=(*LIMITS, *(f"Not held: {check}." for check in checks if not check.holds)),
    )
    truth.save(folder)
    shots = range(1, 9)
    rows = [f"| {n} | {accuracy(model, batch('shots', JUDGE_SEED, 256, n)):.2f} |" for n in shots]
    curve = "\n".join(["| examples | accuracy |", "| --- | --- |", *rows])
    (folder / "card.md").write_text(trained_card(ABOUT, truth, folder, minutes, ["## By the number of examples", curve]))
