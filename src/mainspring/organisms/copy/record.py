"""The training of the copy organism as a whole: teach, measure, and write what was found beside the weights."""

import time
from pathlib import Path

from mainspring.organisms.cards import trained_card
from mainspring.organisms.copy.checks import FIND_SEED, JUDGE_SEED, ROUTES, attention, find, verify
from mainspring.organisms.copy.measures import accuracy, batches, repeated_mass
from mainspring.organisms.copy.snapshots import snapshot, steps
from mainspring.organisms.copy.teach import teach
from mainspring.organisms.trained import TrainedTruth
from mainspring.organisms.training import Progress
from mainspring.organisms.truth import Node

__all__ = ["ABOUT", "LIMITS", "MINUTES", "record", "train"]

ABOUT = "Heads that copy tokens, forwards and backwards, and heads that copy concepts from one language into another."
MINUTES = 13
KNOWN = (
    f"Heads were ranked on sequences drawn with seed {FIND_SEED}: those of a route by what they carry from another row, those that keep a "
    f"word from being said twice by what is lost at their mean. They were judged on other sequences (seed {JUDGE_SEED}), at their mean. "
    "Routes were kept apart by a penalty in training, which says of no head which route it is for."
)
LIMITS = (
    "Its world is 125 words without grammar; sequences are up to 49 tokens long.",
    "Every concept has exactly two tokens in each of two languages, and lists are numbered: which word is next is told by its number, so "
    "the concept heads follow numbers, not meaning.",
    "Only its first layer has an MLP. A twin with MLPs in all layers, and coarser positions, copied by flat attention: no head matched.",
    "Early in the training its first layer was also asked for the two tokens before each and for the concept of a word, by linear readers "
    "that are thrown away: that it knows them was taught, and matching emerged on top of it.",
    "Heads behind the first layer were penalised for working in more than one route. Without that, three of them served both tokens and "
    "concepts. That routes are apart is so by training, and is no evidence about language models.",
    "Late in the training the sizes of heads were penalised, so that the work gathers in few heads; a large model spreads it more.",
    "The token head looks at the token behind the one that it copies, which knows what stood one and two before it: the ordinary score of "
    "induction heads, attention to the copied token, misses it. Asked for two tokens back at the ends of words alone, a twin did the same.",
    "The backward head looks at the token behind the current one's earlier place, and reads there what stood two before; the heads that "
    "keep a word from being said again are in the first layer.",
    "Snapshots are float16 and hold no state of the optimizer.",
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
    found = find(model)
    truth = TrainedTruth(
        organism="copy",
        seed=seed,
        nodes=tuple(Node(layer, head, name) for name, group in found.items() for layer, head in group),
        edges=(),
        directions={},
        spans={"source": "the earlier place of what is said again: Batch.source", "query": "the token before a wanted one"},
        datasets={
            "find": {"generator": "mainspring.tasks.copying.draw", "seed": FIND_SEED},
            "judge": {"generator": "mainspring.tasks.copying.draw", "seed": JUDGE_SEED},
        },
        known=KNOWN,
        checks=verify(model),
        limits=LIMITS,
    )
    truth.save(folder)
    (folder / "card.md").write_text(trained_card(ABOUT, truth, folder, minutes, [_phases(folder)]))


def _phases(folder: Path) -> str:
    """Accuracy, and the attention of the first head of each group, along the training."""
    given = {kind: batches(kind, JUDGE_SEED) for kind in ROUTES.values()}
    once = batches("topic", JUDGE_SEED, 64)
    lines: list[str] = []
    for step in steps(folder):
        model = snapshot(step, folder)
        best = attention(model, find(model))
        cells = [*(accuracy(model, rows) for rows in given.values()), repeated_mass(model, once), *best.values()]
        head = ["step", *given, "said again", *(f"{name} head" for name in best)]
        if not lines:
            lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
        lines.append(f"| {step} | {' | '.join(f'{value:.2f}' for value in cells)} |")
    about = (
        "Accuracy of the three kinds that can be told, the probability of words said before behind `set`, and the attention of the first "
        "head of each group. The snapshots: `mainspring.organisms.copy.snapshots`."
    )
    return "\n\n".join(["## Along the training", about, "\n".join(lines)])
