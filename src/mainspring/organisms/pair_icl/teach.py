"""From random weights to a checkpoint folder: the training of the pair-icl organism.

Two layers have an MLP: the first, where a pair of symbols can tell its function, and the third, where a function can be applied.
Between them and behind them there is attention alone.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from mainspring.organisms.copy.build import Size, build_model
from mainspring.organisms.copy.teach import Course, Pupil, keep, loss_of
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.tasks.pair_icl import NAMES, WORDS, Batch, Kind, draw

__all__ = ["COURSE", "SIZE", "lesson", "meaning", "teach"]

BEGUN = 400
"""From this step on everything is taught; before it labels alone, which are matched only after a plateau of guessing."""
SIZE = Size(layers=4, heads=8, inner=512, mlps=(0, 2))


def lesson(kind: Kind, step: int, generator: Generator) -> Batch:
    """A batch of one kind; the same at every step."""
    return draw(kind, COURSE.schedule.batch, generator)


def meaning(given: Batch) -> Tensor:
    """The function of an example, at its second symbol."""
    found = torch.full_like(given.ids, -1)
    if given.kind in ("shots", "name"):
        found[:, 3:-1:4] = given.task[:, None]
    return found


COURSE = Course(
    schedule=Schedule(steps=6000, learning_rate=2e-3, batch=48, save_every=200),
    mixture={
        "shots": (0.3, BEGUN),
        "named": (0.1, BEGUN),
        "name": (0.12, BEGUN),
        "plain": (0.03, BEGUN),
        "which": (0.1, BEGUN),
        "first": (0.07, BEGUN),
        "classify": (0.28, 0),
    },
    routes={"shots": 0, "named": 0, "name": 0, "plain": 0, "which": 1, "first": 1, "classify": 2},
    lesson=lesson,
    meaning=meaning,
    far=lambda given: torch.ones_like(given.wanted),
    classes=len(NAMES),
    thawed=700,
    recalled=2500,
    sparse=3500,
    parting=((2500, 6.0),),
)


def teach(folder: Path, seed: int, device: str = "cpu", progress: Progress | None = None) -> Any:
    """Train one initialisation and write model, tokenizer and curve to `folder`."""
    pupil = Pupil(build_model(WORDS, SIZE, seed), COURSE, seed)
    fit(pupil, loss_of(pupil, COURSE), COURSE.schedule, seed=seed, folder=folder / "training", device=device, progress=progress)
    return keep(pupil.model, WORDS, folder)
