"""Planting by training: the second route of `plant`, for hosts whose weights nobody writes by hand.

    planted = plant(program, host="llama", seed=3)          raises PlantRefused when the check fails
    twin = train_in(program, "llama", seed=3, weights=Weights.behaviour())      the same behaviour, no planted inside

The alignment is chosen by seed, a fresh model is trained towards it, and the truth that comes out is measured by the
check of `verify` on inputs drawn under another seed (a program with few inputs repeats them).

The same courses for all programs and hosts (`COURSES`). In the first part of the first, every part learns its own job: it
reads codes that are right, ever fewer of them, and what comes from the parts below it instead. Then variables are
interchanged for the rest. Where the check does not hold after that with some room, on inputs of a third seed, interchange
goes on for a second course at a lower rate. A twin is trained on from the original by a short course (`TUNING`).

What it does not do: dials that only weights written by hand can have (splits, weight noise; backups where there are no
heads): they are refused.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mainspring.errors import MainspringError
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.hooked import record, written
from mainspring.organisms.hosts import TRAINED_HOSTS, TrainedHost
from mainspring.organisms.layout import mean_of
from mainspring.organisms.planted import DATASETS, Planted, edges_of
from mainspring.organisms.program import Program
from mainspring.organisms.tokens import tokenizer_of
from mainspring.organisms.trained_in.alignment import Alignment, align
from mainspring.organisms.trained_in.hosts import fresh
from mainspring.organisms.trained_in.interchange import Weights, interchange_loss
from mainspring.organisms.trained_in.pool import Pool
from mainspring.organisms.trained_in.scan import scanning
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.organisms.truth import Node, Truth
from mainspring.organisms.verify import check

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

__all__ = ["COURSES", "TUNING", "Course", "PlantRefused", "plant_trained", "train_in", "tune"]

INPUTS = 4096
_KNOWN = "trained in: strict interchange training pulled these subspaces to these variables; then measured by strict interchange"


class PlantRefused(MainspringError, ValueError):
    """A program that this host does not hold: a dial that cannot be trained, or a training whose check failed."""


@dataclass(frozen=True)
class Course:
    """`taught` is the share of the steps in which parts are handed what they read, from all of it to none."""

    schedule: Schedule
    taught: float

    def handed(self, step: int) -> float:
        return max(0.0, 1 - step / (self.taught * self.schedule.steps)) if self.taught else 0.0


COURSES = (
    Course(Schedule(steps=500, learning_rate=1e-2, batch=64), taught=0.4),
    Course(Schedule(steps=400, learning_rate=5e-3, batch=64), taught=0.0),
)
TUNING = (Course(Schedule(steps=150, learning_rate=3e-3, batch=64), taught=0.0),)
TRIAL, SURE = 30_000, 0.99  # seed of the inputs that decide whether another course is needed, and their bar


def plant_trained(
    program: Program,
    host: str,
    disguise: Disguise | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    twin_of: Program | None = None,
) -> Planted:
    """Train a program into a host; raises `PlantRefused` unless every figure of the check reaches its bar.

    `twin_of` is a program that differs in the rows of tables only: it is trained in first, and then on to `program`.
    """
    planted = train_in(twin_of or program, host, disguise, seed, progress=progress)
    _refuse(planted)
    if twin_of is not None:
        planted = tune(planted, program, progress=progress)
        _refuse(planted)
    return planted


def _refuse(planted: Planted) -> None:
    failed = planted.truth.checks.failures() if planted.truth.checks else ("nothing was measured",)
    if failed:
        raise PlantRefused(
            f"{planted.program.name} could not be trained into {planted.truth.host} with seed {planted.truth.seed}: "
            f"{'; '.join(failed)}. Try another seed, fewer decoys (Disguise(decoys=False)), or a host that it is compiled "
            "into, such as 'gpt2'"
        )


def train_in(
    program: Program,
    host: str,
    disguise: Disguise | None = None,
    seed: int = 0,
    weights: Weights | None = None,
    courses: Sequence[Course] = COURSES,
    progress: Progress | None = None,
    inputs: int = INPUTS,
) -> Planted:
    """Train and measure, whatever comes out: what `plant` refuses is given back here, with its checks.

    `inputs` is how many different inputs it is trained on.
    """
    dials = disguise or Disguise()
    target = TRAINED_HOSTS[host]
    for name in ("splits", "noise") if target.heads else ("backups", "splits", "noise"):
        if getattr(dials, name):
            raise PlantRefused(
                f"{host} is trained, and cannot have {name}={getattr(dials, name)!r}; compiled hosts can, such as 'gpt2'"
            )
    alignment = align(program, target, dials, seed)
    model = fresh(target, program, alignment.size, seed)
    return _trained(model, program, target, dials, alignment, seed, weights or Weights(), courses, progress, inputs)


def tune(base: Planted, program: Program, courses: Sequence[Course] = TUNING, progress: Progress | None = None) -> Planted:
    """A twin of a trained organism: its weights trained on, to a program that differs in the rows of tables only.

    The twin has the places, subspaces and codes of the original; all weights may have moved.
    """
    truth, target = base.truth, TRAINED_HOSTS[base.truth.host]
    alignment = align(base.program, target, truth.disguise, truth.seed)
    alignment = replace(alignment, layout=alignment.layout.refitted(program))
    model = fresh(target, base.program, alignment.size, truth.seed)
    model.load_state_dict(base.module.state_dict())
    return _trained(model, program, target, truth.disguise, alignment, truth.seed, Weights(), courses, progress, INPUTS)


def _trained(
    model: Any,
    program: Program,
    host: TrainedHost,
    disguise: Disguise,
    alignment: Alignment,
    seed: int,
    weights: Weights,
    courses: Sequence[Course],
    progress: Progress | None,
    inputs: int,
) -> Planted:
    pool = Pool(program, alignment, inputs, seed)
    truth = _truth(program, host, disguise, seed, alignment)
    tensors: dict[str, Tensor] = {}
    for number, course in enumerate(courses):
        _run(model, host, alignment, pool, weights, course, seed + 1_000_000 * number, progress)
        tensors = _tensors(model, alignment, pool)
        more = number + 1 < len(courses) and bool(weights.interchange)
        if not more or not check(model, truth, tensors, program, 400, TRIAL).failures(SURE):
            break
    truth = replace(truth, checks=check(model, truth, tensors, program))
    return Planted(model, tokenizer_of(program), program, truth, tensors)


def _run(
    model: Any,
    host: TrainedHost,
    alignment: Alignment,
    pool: Pool,
    weights: Weights,
    course: Course,
    seed: int,
    progress: Progress | None,
) -> None:
    usual = model.config._attn_implementation
    if host.heads:
        model.set_attn_implementation("eager")  # the only one that gives patterns
    readout = list(model.lm_head.parameters())
    slow = [parameter for name, parameter in model.named_parameters() if not name.startswith("lm_head")]

    def loss(step: int, generator: "Generator") -> "tuple[Tensor, dict[str, float]]":
        share = course.handed(step) if weights.codes else 0.0
        return interchange_loss(model, alignment, pool, weights, course.schedule.batch, generator, share)

    def still(_: int, module: "Module") -> None:
        module.eval()

    with nullcontext() if host.heads else scanning():
        fit(
            model,
            loss,
            course.schedule,
            seed=seed,
            progress=progress,
            on_step=still,
            groups=[{"params": slow}, {"params": readout, "scale": 4.0}],  # logits have the longest way to go
        )
    model.set_attn_implementation(usual)


def _tensors(model: Any, alignment: Alignment, pool: Pool) -> "dict[str, Tensor]":
    """Bases as they were chosen, codes as they came out: the mean of what is written for each value, in the subspace."""
    import torch

    table = model.get_input_embeddings().weight.detach()
    token = pool.program.token
    tensors: dict[str, Tensor] = {f"basis/{token}": _token_basis(table), f"codes/{token}": table.clone()}
    sums = {seat.part.writes: torch.zeros(len(seat.labels), alignment.size.width) for seat in alignment.real}
    counts = {seat.part.writes: torch.zeros(len(seat.labels)) for seat in alignment.real}
    for ids, wanted in zip(pool.ids, pool.wanted, strict=True):
        with torch.no_grad():
            run = record(model, ids[:1024])
            for seat in alignment.real:
                name, index = seat.part.writes, wanted.labels[seat.part.writes][:1024].flatten()
                out = written(model, run, *seat.node).flatten(0, 1) @ seat.basis.T @ seat.basis
                sums[name].index_add_(0, index.clamp(min=0), out * (index >= 0)[:, None])
                counts[name].index_add_(0, index.clamp(min=0), (index >= 0).float())
    for seat in alignment.real:
        name = seat.part.writes
        tensors[f"basis/{name}"] = seat.basis
        tensors[f"codes/{name}"] = sums[name] / counts[name].clamp(min=1)[:, None]
    return tensors


def _token_basis(table: "Tensor") -> "Tensor":
    """[r, d]: orthonormal rows that span the differences of the embeddings."""
    import torch

    _, sizes, rows = torch.linalg.svd(table - table.mean(0), full_matrices=False)
    return rows[sizes > 1e-4 * sizes[0]]


def _truth(program: Program, host: TrainedHost, disguise: Disguise, seed: int, alignment: Alignment) -> Truth:
    layout = alignment.layout
    still = program.constants | {mean_of(name) for name in program.constants}
    seats = sorted(
        (*alignment.real, *alignment.backups), key=lambda seat: (seat.part.layer, seat.part.head is None, seat.part.head or 0)
    )
    return Truth(
        program=program.name,
        host=host.name,
        seed=seed,
        layers=layout.layers,
        heads=layout.heads,
        nodes=tuple(
            Node(*seat.node, seat.part.writes, "backup" if seat.backup else "real", seat.part.writes in still) for seat in seats
        ),
        edges=edges_of(program, False, layout, [seat.part for seat in seats]),
        neurons=(),
        values={program.token: program.vocabulary, **{seat.part.writes: seat.labels for seat in seats}},
        disguise=disguise,
        causal=program.to_data(),
        datasets=DATASETS,
        known=_KNOWN,
    )
