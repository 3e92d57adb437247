"""From random weights to a checkpoint folder: the training of the belief organism, which holds a pointer by force.

In the first third of the training a guide is added. Decoded are: which of the two people, and which of the two containers, a question
names, behind layer 0 at those words; and which clause answers, at the question's end behind layer `POINTER`.
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
from mainspring.tasks.belief_stories import DRINK, SIGHTS, UNKNOWN, WORDS, draw

__all__ = ["GUIDED", "LAYERS", "POINTER", "SCHEDULE", "Guided", "loss_of", "teach"]

LAYERS = 5
POINTER = 2
"""The layer behind which the prompt's last token holds which clause answers, and nothing of what is poured."""
SCHEDULE = Schedule(steps=900, learning_rate=2e-3, warmup=100, batch=32, save_every=300, weight_decay=0.05)
THAWED = 0.25
"""The share of the steps with frozen word embeddings."""
GUIDED = 0.35
"""The share of the steps with a guide."""
SHARES = torch.tensor([0.2, 0.35, 0.45])
"""How often stories of each kind are drawn."""
QUESTIONS = 3
"""Asked of a story, one after another: more to learn from a step."""


class Guided(nn.Module):
    """The model and the decoders of its guide, which are not kept."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.which = nn.ModuleList(nn.Linear(model.config.n_embd, n) for n in (2, 2, 3))


def loss_of(guided: Guided, schedule: Schedule) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy of the answers; and of the answers that follow when the tokens that answer hold, behind layer `POINTER`, what they
    hold in another story: the drink of this story's clause that answers there.
    """
    model = guided.model
    embedding = model.get_input_embeddings().weight
    colon = WORDS.index(":")

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        embedding.requires_grad_(step >= THAWED * schedule.steps)
        given = draw(
            SIGHTS[int(torch.multinomial(SHARES, 1, generator=generator))], schedule.batch, generator, questions=QUESTIONS
        )
        ids = given.prompt.to(embedding.device)
        ends = (given.prompt[0] == colon).nonzero()[:, 0]
        told = given.ids[:, 1:][:, ends].to(embedding.device)
        pointer = given.parts["pointer"].roll(1, 0)
        drinks = torch.cat([DRINK + given.parts["drinks"], torch.full((len(ids), 1), UNKNOWN)], 1)
        moved = drinks.gather(1, pointer).to(embedding.device)

        kept: list[Tensor] = []
        behind = model.transformer.h[POINTER]
        reading = behind.register_forward_hook(lambda _module, _inputs, out: kept.append(_states(out)))
        out = model(input_ids=ids, use_cache=False, output_hidden_states=True)
        plain = out.logits[:, ends]
        reading.remove()

        def exchange(_module: nn.Module, _inputs: Any, out: Any) -> Any:
            changed = _states(out).clone()
            changed[:, ends] = kept[0].roll(1, 0)[:, ends]
            return (changed, *out[1:]) if isinstance(out, tuple) else changed

        writing = behind.register_forward_hook(exchange)
        other = model(input_ids=ids, use_cache=False).logits[:, ends]
        writing.remove()
        said, followed = (nn.functional.cross_entropy(x.flatten(0, 1), y.flatten()) for x, y in ((plain, told), (other, moved)))
        if step < GUIDED * schedule.steps:
            states = (out.hidden_states[1][:, ends - 3], out.hidden_states[1][:, ends - 1], kept[0][:, ends])
            wanted = (given.parts[name] for name in ("thinker", "asked", "pointer"))
            decoded = zip(guided.which, states, wanted, strict=True)
            said = said + 0.5 * sum(
                nn.functional.cross_entropy(which(x).flatten(0, 1), y.to(ids.device).flatten()) for which, x, y in decoded
            )
        figures = {
            "right": float((plain.argmax(-1) == told).float().mean()),
            "pointer": float((other.argmax(-1) == moved).float().mean()),
        }
        return said + followed, figures

    return loss


def _states(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def teach(folder: Path, seed: int, device: str = "cpu", progress: Progress | None = None) -> Any:
    """Train a model and write it with its tokenizer to `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        guided = Guided(build_model(WORDS, seed, layers=LAYERS))
    fit(guided, loss_of(guided, SCHEDULE), SCHEDULE, seed=seed, folder=folder / "training", device=device, progress=progress)
    return keep(guided.model, build_tokenizer(WORDS), folder)
