"""From random weights to a checkpoint folder: the training of the Mamba twin, whose early layers are asked for facts directly.

Besides the object at the prompt's end, linear readers ask the state behind the early layers, at the subject's last token, for all five
objects of the subject. They are thrown away; what they leave is that facts lie there readably, in the same way in every prompt.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mainspring.organisms.facts.build import build_tokenizer
from mainspring.organisms.facts.teach import SCHEDULE as TWIN
from mainspring.organisms.facts.teach import THAWED, keep
from mainspring.organisms.facts_mamba.build import EARLY, build_model
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.tasks.facts import FACTS, OBJECT_IDS, WORDS, drawn

__all__ = ["SCHEDULE", "Read", "loss_of", "teach"]

SCHEDULE = replace(TWIN, steps=800, batch=32)
"""The backward pass of the scan costs more than twice as much for twice the batch."""


class Read(nn.Module):
    """The model and the linear readers of its early layers, which are not kept."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.readers = nn.Linear(model.config.hidden_size, OBJECT_IDS.numel())


def loss_of(read: Read, schedule: Schedule) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy of the object at the end of taught prompts, and of what the readers say of their subjects."""
    embedding = read.model.get_input_embeddings().weight

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        embedding.requires_grad_(step >= THAWED * schedule.steps)
        given = drawn(schedule.batch, generator)
        out = read.model(input_ids=given.ids.to(embedding.device), use_cache=False, output_hidden_states=True, logits_to_keep=1)
        behind = out.hidden_states[1 + EARLY[-1]][:, given.last]
        guessed = read.readers(behind).reshape(-1, *OBJECT_IDS.shape)
        known, answer = FACTS[given.subject].to(embedding.device), given.answer.to(embedding.device)
        figures = {
            "right": float((out.logits[:, -1].argmax(-1) == answer).float().mean()),
            "read": float((guessed.argmax(-1) == known).float().mean()),
        }
        return cross_entropy(out.logits[:, -1], answer) + cross_entropy(guessed.flatten(0, 1), known.flatten()), figures

    return loss


def teach(folder: Path, seed: int, device: str, progress: Progress | None, schedule: Schedule = SCHEDULE) -> Any:
    """Train a model and write it with its tokenizer to `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        read = Read(build_model(seed))
    fit(read, loss_of(read, schedule), schedule, seed=seed, folder=folder / "training", device=device, progress=progress)
    return keep(read.model, build_tokenizer(WORDS), folder)
