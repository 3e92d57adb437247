"""Training that gives the same bits twice: for any module, with a checkpoint that is resumed.

    curve = fit(module, loss, Schedule(steps=2000, learning_rate=1e-3), seed=0, folder="runs/copy-0")

AdamW under a linear warm-up, then a cosine from `learning_rate` to `floor * learning_rate`, with the gradient's norm
clipped:

    rate(s) = learning_rate * (s + 1) / warmup                                          s < warmup
    rate(s) = learning_rate * (floor + (1 - floor) * (1 + cos(pi * t)) / 2)             t = (s - warmup) / (steps - warmup)

All chance of a step is drawn from (seed, step): data from the generator handed to `loss`, dropout from a fork of the
global generator that is put back after the step. So a training that was interrupted and resumed ends with the bits of
one that was not (same device, number of threads and torch).

What it does not do: make batches, place them on the device, choose what to train (freeze in `on_step`), or save a
checkpoint folder for others: that is the recipe's.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mainspring.errors import Diverged
from mainspring.organisms.checkpoint import Checkpoint, CheckpointRefused, write_json

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module
    from torch.optim import Optimizer

__all__ = ["CheckpointRefused", "Diverged", "Progress", "Schedule", "fit", "seed_of", "weight_decay_groups"]

Progress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Called as progress(step, steps, figures) after every step."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `batch` is for the loss to read; `log_every` and `save_every` are counted in steps."""

    steps: int
    learning_rate: float
    warmup: int = 50
    floor: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    batch: int = 32
    log_every: int = 25
    save_every: int = 250

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.log_every, self.save_every) < 1 or self.warmup < 0:
            raise ValueError(f"steps, batch, log_every and save_every must be at least 1 and warmup at least 0: {self}")
        if self.learning_rate <= 0 or self.clip <= 0 or not 0 <= self.floor <= 1:
            raise ValueError(f"learning_rate and clip must be positive and floor between 0 and 1: {self}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)
        return self.learning_rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2)


def seed_of(seed: int, step: int) -> int:
    """The seed of one step: far apart for neighbours, and never shared by two trainings."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7], "big")


def weight_decay_groups(module: "Module", schedule: Schedule) -> list[dict[str, Any]]:
    """The usual groups: matrices decay; biases, gains and other vectors do not."""
    parameters = list(module.parameters())
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": schedule.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def fit(
    module: "Module",
    loss: "Callable[[int, Generator], Tensor | tuple[Tensor, dict[str, float]]]",
    schedule: Schedule,
    *,
    seed: int,
    folder: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    on_step: "Callable[[int, Module], None] | None" = None,
    groups: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, float]]:
    """Train `module` in place and give back its curve: a row per logged step with step, loss, learning_rate, gradient
    (its norm before clipping) and the figures of the loss.

    `loss(step, generator)` gives a scalar, or a scalar and figures to log; steps count from 0. `on_step(done, module)` is
    called after every step with the number of steps done, and once before the first (so that what it froze is frozen again
    after a resume: compare with `>=`). With a `folder`, the state is kept there every `save_every` steps, a state found there is
    resumed, and curve.json is written. `groups` are parameter groups: "params", "weight_decay", and "scale" of the rate.
    """
    import torch

    module.to(torch.device(device))
    optimizer = _optimizer(module, schedule, groups)
    store = None if folder is None else Checkpoint(Path(folder), {"seed": seed, "schedule": schedule})
    done, curve = (0, list[dict[str, float]]()) if store is None else store.resume(module, optimizer)
    modes = {inner: inner.training for inner in module.modules()}
    module.train()
    try:
        if on_step is not None:
            on_step(done, module)
        for step in range(done, schedule.steps):
            figures = _step(module, optimizer, loss, schedule, seed, step, device)
            last = step + 1 == schedule.steps
            if last or (step + 1) % schedule.log_every == 0:
                curve.append({"step": step + 1, **figures})
            if on_step is not None:
                on_step(step + 1, module)
            if progress is not None:
                progress(step + 1, schedule.steps, figures)
            if store is not None and (last or (step + 1) % schedule.save_every == 0):
                store.save(step + 1, module, optimizer, curve)
    finally:
        optimizer.zero_grad(set_to_none=True)
        for inner, mode in modes.items():
            inner.training = mode
    if folder is not None:
        write_json(Path(folder) / "curve.json", curve)
    return curve


def _optimizer(module: "Module", schedule: Schedule, groups: Sequence[Mapping[str, Any]] | None) -> "Optimizer":
    from torch.optim import AdamW

    given = weight_decay_groups(module, schedule) if groups is None else [dict(group) for group in groups]
    for group in given:
        if strange := set(group) - {"params", "weight_decay", "scale"}:
            raise ValueError(f"a parameter group has params, weight_decay and scale, not {', '.join(sorted(strange))}")
        group["params"] = list(group["params"])
        group.setdefault("scale", 1.0)
        group.setdefault("weight_decay", schedule.weight_decay)
    return AdamW(given, lr=schedule.learning_rate, betas=schedule.betas)


def _step(
    module: "Module", optimizer: "Optimizer", loss: Any, schedule: Schedule, seed: int, step: int, device: str
) -> dict[str, float]:
    import torch

    chance = seed_of(seed, step)
    rate = schedule.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    optimizer.zero_grad(set_to_none=True)
    with _forked(chance, device):
        given = loss(step, torch.Generator().manual_seed(chance))
        value, figures = given if isinstance(given, tuple) else (given, {})
        at = float(value.detach())
        if not math.isfinite(at):
            raise Diverged("loss", step)
        value.backward()
    trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = float(torch.nn.utils.clip_grad_norm_(trained, schedule.clip))
    if not math.isfinite(norm):
        raise Diverged("gradient", step)
    optimizer.step()
    return {"loss": at, "learning_rate": rate, "gradient": norm, **{name: float(figure) for name, figure in figures.items()}}


@contextmanager
def _forked(seed: int, device: str) -> Iterator[None]:
    """The global generators seeded for dropout and the like, and put back."""
    import torch

    place = torch.device(device)
    cuda = [place.index or 0] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        yield
