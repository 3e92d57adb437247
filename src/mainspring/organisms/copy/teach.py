"""From random weights to a checkpoint folder, with snapshots along the way.

A course is what one organism is taught: kinds of batches, one kind a step, and what its first layer is asked for early on. The loss is
the cross-entropy of the tokens that can be told, plus

    early   how badly linear readers, thrown away later, tell off the first layer which token stood before each (at some places also the
            one before that) and what a token means: matching in a later layer pays only once an earlier one knows what stood before
    later   how much heads behind the first layer work for more than one route (`routes`); no head is preferred to another
    late    the sizes of what all heads carry: the work gathers in few heads, which look at little

What it does not do: say where a head should look.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mainspring.organisms.copy.build import Size, build_model, build_tokenizer
from mainspring.organisms.copy.routes import Routes, carried
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.tasks.copying import CONCEPTS, WORDS, Batch, Kind, draw

__all__ = [
    "COURSE",
    "SIZE",
    "SNAPSHOTS",
    "Course",
    "Lesson",
    "Pupil",
    "head_sizes",
    "keep",
    "lesson",
    "loss_of",
    "teach",
]


UNASKED = -100


class Lesson(Protocol):
    """A batch: token ids [row, pos], and which of them can be told."""

    @property
    def ids(self) -> Tensor: ...
    @property
    def wanted(self) -> Tensor: ...


@dataclass(frozen=True)
class Course:
    """What is taught, and when.

    mixture    kind -> how often a batch of it is drawn, and from which step on
    routes     kind -> the route that it is for: kinds of one route may share heads
    lesson     (kind, step, generator) -> a batch
    meaning    batch -> [row, pos] what the first layer is to tell at a token, one of `classes`, or -1
    far        batch -> [row, pos] where it is to tell the token two before as well
    thawed     the steps with frozen embeddings
    recalled   the steps in which the first layer is asked, and `recall`: how much that counts
    parting    (step, how much) from which step on heads in several routes are penalised, and how much
    sparse     the step from which the sizes of heads are penalised, and `sparsity`: how much
    """

    schedule: Schedule
    mixture: Mapping[str, tuple[float, int]]
    routes: Mapping[str, int]
    lesson: Callable[[Any, int, torch.Generator], Lesson]
    meaning: Callable[[Any], Tensor]
    far: Callable[[Any], Tensor]
    classes: int
    thawed: int
    recalled: int
    sparse: int
    recall: float = 0.5
    parting: tuple[tuple[int, float], ...] = ((200, 1.0), (1600, 6.0))
    sparsity: float = 5e-3


class Pupil(nn.Module):
    """The model, and what is thrown away: two linear readers of its first layer, and the record of its routes.

    MLPs that write zeros are not computed.
    """

    def __init__(self, model: Any, course: Course, seed: int) -> None:
        super().__init__()
        self.model = model
        self.routes = Routes(model, len(set(course.routes.values())))
        self.before = nn.Linear(model.config.hidden_size, 2 * model.config.vocab_size)
        self.meaning = nn.Linear(model.config.hidden_size, course.classes)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for reader in (self.before, self.meaning):
                reader.weight.normal_(0, 0.02, generator=generator)
                reader.bias.zero_()
        for block in model.transformer.h:
            if not block.mlp.c_proj.weight.requires_grad:
                block.mlp.forward = torch.zeros_like


def head_sizes(model: Any) -> Tensor:
    """[layer, head]: the norm of the weights of what a head takes from a token and what it writes; where it looks costs nothing."""
    width, heads = model.config.n_embd, model.config.n_head
    sizes: list[Tensor] = []
    for block in model.transformer.h:
        taken = block.attn.c_attn.weight[:, 2 * width :].unflatten(1, (heads, -1)).pow(2).sum((0, 2))
        written = block.attn.c_proj.weight.unflatten(0, (heads, -1)).pow(2).sum((1, 2))
        sizes.append((taken + written + 1e-8).sqrt())
    return torch.stack(sizes)


def loss_of(pupil: Pupil, course: Course) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The loss of a step, with figures: the cross-entropy under the name of the kind, `right`, `recalled`, `overlap` and `sizes`."""
    kinds = list(course.mixture)
    model = pupil.model
    embedding = model.get_input_embeddings().weight

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        embedding.requires_grad_(step >= course.thawed)
        shares = torch.tensor([share if step >= begun else 0.0 for share, begun in course.mixture.values()])
        kind = kinds[int(torch.multinomial(shares, 1, generator=generator))]
        given = course.lesson(kind, step, generator)
        ids, told = given.ids.to(embedding.device), given.wanted[:, 1:].to(embedding.device)
        with carried(model) as z:
            out = model(input_ids=ids, use_cache=False, output_hidden_states=step < course.recalled)
        logits = out.logits[:, :-1][told]
        total = nn.functional.cross_entropy(logits, ids[:, 1:][told])
        figures = {kind: float(total.detach()), "right": float((logits.argmax(-1) == ids[:, 1:][told]).float().mean())}
        if out.hidden_states is not None:
            recalled = _recalled(pupil, course, out.hidden_states[1], given)
            total, figures["recalled"] = total + course.recall * recalled, float(recalled.detach())
        if parting := max((weight for begun, weight in course.parting if step >= begun), default=0.0):
            overlap = pupil.routes.overlap(model, [each[:, :-1] for each in z], told, course.routes[kind])
            total, figures["overlap"] = total + parting * overlap, float(overlap.detach())
        if step >= course.sparse:
            sizes = head_sizes(model).sum()
            total, figures["sizes"] = total + course.sparsity * sizes, float(sizes.detach())
        return total, figures

    return loss


def _recalled(pupil: Pupil, course: Course, first: Tensor, given: Lesson) -> Tensor:
    """How badly what stood before is read off the residual stream behind the first layer, and what a token means."""
    ids, meaning, far = (each.to(first.device) for each in (given.ids, course.meaning(given), course.far(given)))
    read = pupil.before(first[:, 2:]).unflatten(-1, (2, -1))
    stood = torch.stack([ids[:, 1:-1], ids[:, :-2].where(far[:, 2:], UNASKED)], -1)
    total = nn.functional.cross_entropy(read.flatten(0, 2), stood.flatten(), ignore_index=UNASKED)
    known = meaning >= 0
    return total + nn.functional.cross_entropy(pupil.meaning(first[known]), meaning[known]) if known.any() else total


# ---- the copy organism ---------------------------------------------------------------------------------------------------------------

SIZE = Size()
SHORT, LONG, GROWING = 5, 18, (200, 800)
"""The longest sequence to copy, at the first of these steps and at the second."""
SNAPSHOTS = (400, 800, 1200, 1600, 2000, 3000)


def lesson(kind: Kind, step: int, generator: torch.Generator) -> Batch:
    """Copying begins with short sequences: attention that is still flat finds the right place among five, and not among twenty."""
    grown = min(max((step - GROWING[0]) / (GROWING[1] - GROWING[0]), 0.0), 1.0)
    longest = SHORT + round(grown * (LONG - SHORT))
    size = int(torch.randint(SHORT - 1, longest + 1, (), generator=generator)) if kind in ("repeat", "reverse") else None
    return draw(kind, COURSE.schedule.batch, generator, size)


def meaning(given: Batch) -> Tensor:
    """The concept of a word, at its last token."""
    ends = torch.zeros_like(given.wanted)
    ends[:, 1:] = given.concept[:, 1:] == given.concept[:, :-1]
    return given.concept.where(ends, -1)


COURSE = Course(
    schedule=Schedule(steps=6000, learning_rate=2e-3, batch=48, save_every=200),
    mixture={"repeat": (0.33, 0), "reverse": (0.2, 0), "words": (0.22, 0), "topic": (0.25, 0)},
    routes={"repeat": 0, "reverse": 1, "words": 2, "topic": 3},
    lesson=lesson,
    meaning=meaning,
    far=lambda given: torch.ones_like(given.wanted),
    classes=CONCEPTS,
    thawed=300,
    recalled=1000,
    sparse=2400,
)


def teach(folder: Path, seed: int, device: str = "cpu", progress: Progress | None = None) -> Any:
    """Train one initialisation and write model, tokenizer, curve and snapshots (float16) to `folder`."""
    from safetensors.torch import save_file

    pupil = Pupil(build_model(WORDS, SIZE, seed), COURSE, seed)

    def snap(done: int, module: nn.Module) -> None:
        if done in SNAPSHOTS:
            (folder / "snapshots").mkdir(parents=True, exist_ok=True)
            state = {
                name: value.detach().cpu().half().contiguous()
                for name, value in pupil.model.state_dict().items()
                if name != "lm_head.weight"
            }
            save_file(state, folder / "snapshots" / f"step-{done:05d}.safetensors")

    fit(
        pupil,
        loss_of(pupil, COURSE),
        COURSE.schedule,
        seed=seed,
        folder=folder / "training",
        device=device,
        progress=progress,
        on_step=snap,
    )
    return keep(pupil.model, WORDS, folder)


def keep(model: Any, words: tuple[str, ...], folder: Path) -> Any:
    """Write a trained model and its tokenizer; of the training's checkpoint the curve alone stays, as curve.json."""
    model = model.to("cpu").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.save_pretrained(folder)
    build_tokenizer(words).save_pretrained(folder)
    (folder / "training" / "curve.json").replace(folder / "curve.json")
    shutil.rmtree(folder / "training")
    return model
