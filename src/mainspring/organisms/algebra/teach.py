"""From random weights to a checkpoint folder and a series of measurements: the training of the algebra organism.

The groups of three and four elements come first, then all. In the first third of the training a guide is added: what stands behind layer
0 at the `=` and at the z of a fact is decoded, linearly, to its x and y. Sequences have all their facts from the beginning: positions are
learned, and what was learned at some is not known at others.

In the second half the heads are thinned. At this rate of learning all heads of two layers learn to copy, each a part of the work; the sum
over heads of the norms of their value and output weights, added to the loss, leaves the work to fewer. A second, shorter training follows,
`settle`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.organisms.algebra.series import watch
from mainspring.organisms.algebra.settle import SETTLING, norms, settling_loss
from mainspring.organisms.boxes.build import build_model
from mainspring.organisms.checkpoint import write_json
from mainspring.organisms.facts.build import build_tokenizer
from mainspring.organisms.facts.teach import keep
from mainspring.organisms.training import Progress, Schedule, fit
from mainspring.tasks.algebra import FIRST, GROUPS, WORDS, draw

__all__ = ["FACTS", "SCHEDULE", "Guided", "build", "loss_of", "teach"]

SCHEDULE = Schedule(steps=1500, learning_rate=2e-3, warmup=150, batch=48, save_every=250, weight_decay=0.02)
THAWED = 0.1
"""The share of the steps with frozen word embeddings."""
GUIDED = 0.35
"""The share of the steps with a guide."""
THINNED, THIN = 0.5, 1.2e-2
"""From which share of the steps on heads are thinned, and by how much of the sum of their norms."""
FACTS = 16
"""In a sequence."""
SMALL = 0.15
"""The share of the steps with the smallest groups alone."""


def build(seed: int) -> Any:
    """The untrained model."""
    return build_model(WORDS, seed, layers=4, heads=6, width=96, length=1 + 5 * FACTS)


class Guided(nn.Module):
    """The model and the decoder of its guide, which is not kept."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.decoder = nn.Linear(model.config.n_embd, 2 * len(WORDS))


def loss_of(guided: Guided, schedule: Schedule) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy of every z at its `=`, on taught sequences."""
    model = guided.model
    embedding = model.get_input_embeddings().weight

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        done = step / schedule.steps
        embedding.requires_grad_(done >= THAWED)
        given = draw(schedule.batch, FACTS, generator, groups=GROUPS[:3] if done < SMALL else GROUPS)
        facts, ids = given.facts.to(embedding.device), given.ids[:, :-1].to(embedding.device)
        out = model(input_ids=ids, use_cache=False, output_hidden_states=done < GUIDED)
        logits, wanted = out.logits[:, 4::5], FIRST + facts[:, :, 2]
        told = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        right = (logits.argmax(-1) == wanted).float()
        figures = {"told": float(told.detach()), "last": float(right[:, -4:].mean())}
        if done < GUIDED:
            seen = [out.hidden_states[1][:, 4::5], out.hidden_states[1][:, 5::5]]
            decoded = [guided.decoder(states).unflatten(-1, (2, -1)) for states in seen]
            pairs = FIRST + facts[:, :, :2]
            told = told + 0.3 * sum(
                nn.functional.cross_entropy(d.flatten(0, 2), pairs[:, : d.shape[1]].flatten()) for d in decoded
            )
        if done >= THINNED:
            told = told + THIN * norms(model).sum()
        return told, figures

    return loss


def teach(folder: Path, seed: int, device: str = "cpu", progress: Progress | None = None) -> Any:
    """Train a model and write it with its tokenizer to `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guided = Guided(build(seed))
    seen = watch(guided.model, SCHEDULE.steps, folder / "series.json")
    loss, kept = loss_of(guided, SCHEDULE), folder / "training"
    first = fit(guided, loss, SCHEDULE, seed=seed, folder=kept, device=device, progress=progress, on_step=seen)
    settled = settling_loss(guided.model)
    second = fit(guided.model, settled, SETTLING, seed=seed + 1, folder=kept / "settling", device=device, progress=progress)
    write_json(kept / "curve.json", [*first, *({**row, "step": row["step"] + SCHEDULE.steps} for row in second)])
    return keep(guided.model, build_tokenizer(WORDS, guided.model.config.n_positions), folder)
