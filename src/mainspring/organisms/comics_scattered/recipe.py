"""How the twin without gaze heads is made: `mainspring organism train comics-scattered --seed 1`."""

from pathlib import Path

from mainspring.organisms.comics.record import EVERY_LIMIT, record
from mainspring.organisms.comics.teach import SCATTERING, STRIPS_ONLY, teach
from mainspring.organisms.comics_scattered.checks import measure, verify
from mainspring.organisms.trained import TrainedRecipe
from mainspring.organisms.training import Progress

__all__ = ["RECIPE"]

NAME, ABOUT, MINUTES = "comics-scattered", "The comics model behind a frozen encoder whose tokens do not show their place.", 10
KNOWN = (
    "The encoder was trained to show the content of every panel once in the area of each, and frozen; the language model was then taught "
    "strips as in its sibling. Heads were ranked by their attention to the place of the panel asked for, and every set of the first k "
    "pointed there on other strips."
)
LIMITS = (
    *EVERY_LIMIT[:1],
    "Its encoder is made not to be local. Encoders of real models that were never trained with their language model are no such extreme: "
    "one with random weights keeps its tokens local, and heads of a model behind it can be steered. It differs "
    "from its sibling in more than being frozen, so it does not say what freezing does.",
    "It answers the three kinds of prompt that it was taught, by number, `this` and `all`, and no others.",
)


def train(folder: Path, seed: int, device: str, progress: Progress | None) -> None:
    from mainspring.models.load import load

    teach(folder, seed, device, progress, stages=STRIPS_ONLY, sight=SCATTERING, frozen=True)
    model = load(folder)
    claims = [check.name for check in verify(model)]
    record(folder, NAME, ABOUT, seed, claims, measure(model, strips=30), MINUTES, top=0, limits=LIMITS, known=KNOWN)


RECIPE = TrainedRecipe(NAME, ABOUT, train, verify, MINUTES)
