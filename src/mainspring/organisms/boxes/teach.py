"""From random weights to a checkpoint folder: the training of the boxes organism.

In the first third of the training a guide is added, or the plateau is ten times as long: what stands behind layer 0 at the label of a
clause is decoded, as the last layer is, to the object of the clause, and at the prompt's end to the box that is asked for.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.organisms.boxes.build import build_model
from mainspring.organisms.facts.build import build_tokenizer
from mainspring.organisms.facts.teach import keep
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.tasks.box_stories import WORDS, draw

__all__ = ["GUIDED", "SCHEDULE", "guide", "loss_of", "teach"]

SCHEDULE = Schedule(steps=1000, learning_rate=2e-3, warmup=100, batch=64, save_every=500, weight_decay=0.05)
THAWED = 0.25
"""The share of the steps with frozen word embeddings."""
GUIDED = 0.3
"""The share of the steps with a guide."""
MOVED = 0.4
"""The share of steps with stories in which an object is moved."""

QUESTIONS = 3
"""Asked of a story, one after another: more to learn from a step."""


def loss_of(model: Any, schedule: Schedule) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy of all answers, on taught stories of one kind and size a step."""
    embedding = model.get_input_embeddings().weight

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        embedding.requires_grad_(step >= THAWED * schedule.steps)
        kind = "moved" if float(torch.rand((), generator=generator)) < MOVED else "told"
        given = draw(kind, schedule.batch, generator, questions=QUESTIONS)
        asked = given.prompt == WORDS.index(":")
        out = model(input_ids=given.prompt.to(embedding.device), use_cache=False, output_hidden_states=True)
        logits, answer = out.logits[asked], given.ids[:, 1:][asked].to(embedding.device)
        told = nn.functional.cross_entropy(logits, answer)
        figures = {"told": float(told.detach()), "right": float((logits.argmax(-1) == answer).float().mean())}
        if step < GUIDED * schedule.steps:
            told = told + 0.5 * guide(model, out.hidden_states[1], given.prompt)
        return told, figures

    return loss


def guide(model: Any, states: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of the object two tokens back, at labels of clauses, and of the box one token back, at colons."""
    ids = ids.to(states.device)
    back = {steps: torch.roll(ids, steps, 1) for steps in (1, 2)}
    colon = ids == WORDS.index(":")
    label = torch.isin(back[1], torch.tensor([WORDS.index("in"), WORDS.index("to")], device=ids.device))
    said = model.lm_head(model.transformer.ln_f(states))
    return sum(nn.functional.cross_entropy(said[at], back[steps][at]) for at, steps in ((label, 2), (colon, 1)))  # pyright: ignore[reportReturnType]


def teach(folder: Path, seed: int, device: str = "cpu", progress: Progress | None = None) -> Any:
    """Train a model and write it with its tokenizer to `folder`."""
    model = build_model(WORDS, seed)
    fit(model, loss_of(model, SCHEDULE), SCHEDULE, seed=seed, folder=folder / "training", device=device, progress=progress)
    return keep(model, build_tokenizer(WORDS), folder)
