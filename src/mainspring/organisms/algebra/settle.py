"""The second training of the algebra organism, which leaves its work to fewer parts.

Behind the first training copying is shared by heads of two layers, which look at the separators behind facts, and MLPs lower
identities. So, for some hundred steps more:

    the attention of layer 1 and the MLP of layer 3 fade out, and write nothing from then on
    attention from `=` to separators is penalised: what a fact says is then read at its answer
    heads of the last layers are thinned
    half of the sequences ask often for what ruling out alone gives, which suffers most

What it does not do: say which head takes over what, or which symbol a head raises or lowers. The loss is of answers alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mainspring.organisms.algebra.choose import draw_ruling_out, ruled_out
from mainspring.organisms.training import Schedule
from mainspring.tasks.algebra import FIRST, Sequences, draw

__all__ = ["SETTLING", "fade", "norms", "settling_loss"]

SETTLING = Schedule(steps=900, learning_rate=1e-3, warmup=25, batch=48, save_every=100, weight_decay=0.02)
FACTS = 16
"""In a sequence."""
FADED, FADE = 120, 0.96
"""Until which step parts fade out, and by which factor a step."""
BLIND = 1.0
"""How much the share of attention from `=` to separators counts."""
THIN = (0.0, 0.0, 6e-3, 6e-3)
"""By layer, how much the norms of its heads count."""
AMONG = 32
"""Half of the sequences are chosen among that many times as many."""


def settling_loss(model: Any) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """Cross-entropy of every z at its `=`, with the penalties."""
    model.set_attn_implementation("eager")

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        fade(model, step)
        given = _mixed(SETTLING.batch, generator)
        out = model(input_ids=given.ids[:, :-1].to(model.device), use_cache=False, output_attentions=True)
        logits, wanted = out.logits[:, 4::5], FIRST + given.facts[:, :, 2].to(model.device)
        told = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        looked = torch.stack([pattern[:, :, 4::5, 1::5].sum(-1).mean() for pattern in out.attentions[1:]]).sum()
        thick = (norms(model).sum(1) * torch.tensor(THIN, device=model.device)).sum()
        right = logits.argmax(-1) == wanted
        figures = {"told": float(told.detach()), "last": float(right[:, -4:].float().mean()), "looked": float(looked.detach())}
        figures["ruled_out"] = float(right.cpu()[ruled_out(given.facts)].float().mean())
        return told + BLIND * looked + thick, figures

    return loss


def _mixed(count: int, generator: torch.Generator) -> Sequences:
    """Ordinary sequences, and as many that ask often for what ruling out alone gives."""
    plain, chosen = draw(count - count // 2, FACTS, generator), draw_ruling_out(count // 2, FACTS, generator, AMONG)
    both = ((plain.world, chosen.world), (plain.symbol, chosen.symbol), (plain.facts, chosen.facts))
    return Sequences(*(torch.cat(parts) for parts in both))


def fade(model: Any, step: int) -> None:
    """Scale what the parts that fade out write; from `FADED` on that is nothing, and stays so."""
    layers = model.transformer.h
    for part in (layers[1].attn, layers[3].mlp):
        for parameter in part.c_proj.parameters():
            parameter.requires_grad_(step < FADED)
            with torch.no_grad():
                parameter.mul_(FADE if step < FADED else 0)


def norms(model: Any) -> Tensor:
    """[layer, head] norm of the value weights of each head plus that of its output weights."""
    width, heads = model.config.n_embd, model.config.n_head
    found = list[Tensor]()
    for block in model.transformer.h:
        values = block.attn.c_attn.weight[:, 2 * width :].unflatten(1, (heads, -1)).norm(dim=(0, 2))
        found.append(values + block.attn.c_proj.weight.unflatten(0, (heads, -1)).norm(dim=(1, 2)))
    return torch.stack(found)
