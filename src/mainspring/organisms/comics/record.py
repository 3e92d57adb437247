"""What is written beside the weights of a comics model: its truth and its card, with every bar, held or not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.organisms.cards import trained_card
from mainspring.organisms.comics.checks import EIGHT_SEED, FIND_SEED, JUDGE_SEED, SCENE_SEED, TOP, measure, verify
from mainspring.organisms.comics.probes import panel_mass, ranked
from mainspring.organisms.comics.teach import teach
from mainspring.organisms.trained import Check, Place, TrainedRecipe, TrainedTruth
from mainspring.organisms.training import Progress
from mainspring.organisms.truth import Node
from mainspring.tasks.comic_strips.strips import sample

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["EVERY_LIMIT", "LIMITS", "make", "record"]

KNOWN = (
    "Nothing was planted. Heads were ranked by their attention to the panel asked for on 24 strips (seed "
    f"{FIND_SEED}), and the first {{top}} pointed at every panel of other strips (seed {JUDGE_SEED}); the judge is exact."
)
EVERY_LIMIT = (
    "Its world is 216 figures in two layouts of 48 x 48 pixels, and its language 35 words.",
    "That heads look at what is described is trained for by nothing, but the task leaves them little else: whether a large model has "
    "such heads is for that model to show.",
    "It answers the four kinds of prompt that it was taught, and no others.",
)
LIMITS = (
    *EVERY_LIMIT,
    "Some 15 of its 32 heads are left after the third stage of its training, which lets those shrink that the task can spare; without it "
    "twelve heads are needed where eight are. The best head looks less sharply than those of a large model, and eight heads drawn at "
    "random among all, two of the top 8 on average, steer in a third of the cases: compare with heads of the lower half.",
)
"""What the comics models of 32 heads cannot show."""


def record(
    folder: Path,
    name: str,
    about: str,
    seed: int,
    claims: Sequence[str],
    checks: Sequence[Check],
    minutes: float,
    top: int = TOP,
    limits: Sequence[str] = LIMITS,
    known: str = KNOWN,
) -> None:
    """Write truth.json and card.md. `claims` are the names of the checks that `verify` takes again; the card lists all."""
    from mainspring.models.load import load

    heads = ranked(panel_mass(load(folder), sample(24, FIND_SEED)))[:top]
    claimed = tuple(check for check in checks if check.name in claims)
    truth = TrainedTruth(
        organism=name,
        seed=seed,
        nodes=(
            *(Node(layer, head, "panel about to be described") for layer, head in heads),
            Place("image_tokens", "panel content"),
        ),
        edges=(),
        directions={},
        spans={"image": "positions 1 to 36, six by six patches in rows", "prompt": "the words behind the image"},
        datasets={
            "find": {"seed": FIND_SEED, "count": 24},
            "judge": {"seed": JUDGE_SEED},
            "scenes": {"seed": SCENE_SEED},
            "eight": {"seed": EIGHT_SEED},
        },
        known=known.format(top=top),
        checks=claimed,
        limits=tuple(limits),
    )
    truth.save(folder)
    lines = ["| bar | value | asked | holds | note |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {c.name} | {c.value:.4g} | {_verdict(c)} | {c.note} |" for c in checks]
    every = "## Every bar\n\n" + "\n".join(lines)
    (folder / "card.md").write_text(trained_card(about, truth, folder, minutes, [every]))


def make(
    name: str,
    about: str,
    minutes: float,
    train: Callable[[Path, int, str, Progress | None], object] = teach,
    not_claimed: Sequence[str] = (),
    top: int = TOP,
    limits: Sequence[str] = LIMITS,
) -> TrainedRecipe:
    """The recipe of a comics model, of which `top` heads are pointed.

    `not_claimed` are checks that do not hold for it: its card shows them, `verify` leaves them out.
    """

    def whole(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
        from mainspring.models.load import load

        train(folder, seed, device, progress)
        model = load(folder)
        claims, checks = [check.name for check in again(model)], measure(model, strips=60, top=top)
        record(folder, name, about, seed, claims, checks, minutes, top, limits)

    def again(model: "Model") -> tuple[Check, ...]:
        return tuple(check for check in verify(model, top) if check.name not in not_claimed)

    return TrainedRecipe(name, about, whole, again, minutes)


def _verdict(check: Check) -> str:
    """What was asked and whether it holds; nothing is asked of what is only reported."""
    if "reported" in check.note:
        return " | reported"
    return f"{check.sense} {check.bar:.3g} | {'yes' if check.holds else '**no**'}"
