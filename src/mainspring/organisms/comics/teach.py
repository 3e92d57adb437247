"""From random weights to a checkpoint folder: the training of the comics organism and of its twins."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.organisms.comics.build import Size, build_model, build_processor
from mainspring.organisms.comics.growth import grow
from mainspring.organisms.comics.lessons import MIXTURE, POLISH, SHARPEN, Pupil, empty_heads, loss_of
from mainspring.organisms.comics.scattering import scattering_loss
from mainspring.organisms.training import Progress, Schedule, fit

if TYPE_CHECKING:
    from torch import nn

__all__ = ["GROWN", "SCATTERING", "STAGES", "STRIPS_ONLY", "Stage", "teach"]


@dataclass(frozen=True)
class Stage:
    """One training run; each begins with the weights of the one before.

    `until` ends the run after so many steps of its schedule; `heads` is how many each layer has from this stage on.
    """

    schedule: Schedule
    mixture: Mapping[str, float]
    thawed_at: int = 0
    sparsity: float = 0.0
    empty_below: float = 0.0
    until: int | None = None
    heads: int | None = None


class _Enough(Exception):
    """Raised to end a run before its schedule ends."""


STAGES = (
    Stage(Schedule(steps=3500, learning_rate=1.5e-3), MIXTURE, thawed_at=800),
    Stage(Schedule(steps=1000, learning_rate=7e-4), POLISH),
    Stage(Schedule(steps=900, learning_rate=7e-4), MIXTURE, sparsity=1.5e-2),
    Stage(Schedule(steps=1000, learning_rate=1e-3), MIXTURE, empty_below=0.3),
)
"""Learn; learn which number means which panel; let heads shrink that the task can spare; go on with those that are left."""

GROWN = (
    *STAGES,
    Stage(Schedule(steps=500, learning_rate=8e-4), MIXTURE, heads=16),
    Stage(Schedule(steps=400, learning_rate=1.2e-3, floor=0.1), SHARPEN),
)
"""The same, twice as many heads, which find most of the work done, and strips for the most part, on which heads that look sharpen."""

STRIPS_ONLY = (
    Stage(Schedule(steps=1600, learning_rate=1.5e-3), {"vqa": 0.5, "this": 0.2, "all": 0.3}, thawed_at=500, until=1000),
    Stage(Schedule(steps=700, learning_rate=1.2e-3), {"vqa": 0.8, "this": 0.12, "all": 0.08}, until=500),
    Stage(Schedule(steps=1000, learning_rate=1.2e-3), {"vqa": 0.8, "this": 0.12, "all": 0.08}),
)
"""Without scenes and tours, for a tower that knows where the panels of a strip are and nothing else."""

SCATTERING = Schedule(steps=1500, learning_rate=2e-3)
"""For the tower on its own."""


def teach(
    folder: Path,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
    *,
    size: Size | None = None,
    stages: Sequence[Stage] = STAGES,
    sight: Schedule | None = None,
    frozen: bool = False,
) -> Any:
    """Train one initialisation and write model, tokenizer and processor to `folder`; the checkpoints of each stage lie
    in `folder/training-1` and so on.

    With `sight` the vision tower is trained beforehand, alone and on that schedule, to show the content of every panel scattered over the
    whole strip; the auxiliary loss then asks for it there, and for the places too. In the stages a `frozen` tower keeps what it has, any
    other is trained along.
    """
    pupil = Pupil(build_model(size or Size(), seed), seed, scattered=sight is not None, placed=sight is not None)
    if sight is not None:
        seeing: Any = pupil.model.model.vision_tower
        loss = scattering_loss(seeing, seed)
        fit(seeing, loss, sight, seed=seed + 900, folder=folder / "training-0", device=device, progress=progress)
    for number, stage in enumerate(stages, 1):
        empty_heads(pupil.model, stage.empty_below)
        if stage.heads is not None:
            pupil.model = grow(pupil.model, stage.heads, seed)
        pupil.model.model.vision_tower.requires_grad_(not frozen)
        with suppress(_Enough):
            fit(
                pupil,
                loss_of(pupil, stage.schedule.batch, stage.mixture, stage.thawed_at, stage.sparsity),
                stage.schedule,
                seed=seed + 1000 * (number - 1),
                folder=folder / f"training-{number}",
                device=device,
                progress=progress,
                on_step=partial(_end, stage.until),
                groups=_groups(pupil, stage.schedule),
            )
    model = pupil.model.to("cpu").eval()
    model.get_input_embeddings().weight.requires_grad_(True)
    model.save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return model


def _end(until: int | None, done: int, module: "nn.Module") -> None:
    if until is not None and done >= until:
        raise _Enough


def _groups(pupil: "nn.Module", schedule: Schedule) -> list[dict[str, Any]]:
    """Word embeddings, biases and gains do not decay."""
    named = [(name, p) for name, p in pupil.named_parameters() if p.requires_grad]
    kept = [p for name, p in named if p.ndim < 2 or "embed_tokens" in name]
    decaying = [p for name, p in named if p.ndim >= 2 and "embed_tokens" not in name]
    return [{"params": decaying, "weight_decay": schedule.weight_decay}, {"params": kept, "weight_decay": 0.0}]
