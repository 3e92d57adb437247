"""What the algebra organism can do, and which of its heads copy, promote and demote, written out on sites alone.

copying    IE(head) = P(z | its z patched from a sequence with the fact into one where that fact says something else) - P(z | without)
looking    how much of a head's attention at the last `=` falls on the facts that say what is asked: on their answers, or on the
           separators behind these
share      a head's contribution at the last `=` to a symbol's logit, through the frozen final norm, less its mean over all symbols
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mainspring.organisms.algebra.series import FACTS, closed, right
from mainspring.sites import at
from mainspring.tasks.algebra import FIRST, SYMBOLS, Sequences, draw
from mainspring.tasks.algebra_rules import RULES, coverage, diagnostic

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["FIND_SEED", "JUDGE_SEED", "accuracy", "altered", "asked", "by_place", "by_rule", "closure", "copiers", "copying"]
__all__ += ["demoter", "effects", "identity_of", "logits", "looking", "share", "share_of_mlps"]

FIND_SEED, JUDGE_SEED = 61, 62
END = at.logits(pos=-1)


def asked(rule: str, seed: int, rows: int = 256, held: bool = False) -> Sequences:
    """Diagnostic sequences of one rule."""
    return diagnostic(rule, rows, FACTS, torch.Generator().manual_seed(seed), held)


def logits(model: "Model", given: Sequences, edits: Any = None) -> Tensor:
    """[row, vocabulary] at the last `=`."""
    return model.run(given.ids[:, :-1], edits=edits, read=END)[END].float().cpu()


def accuracy(model: "Model", given: Sequences) -> float:
    """The share of last answers that are right."""
    return right(logits(model, given), given)


def closure(model: "Model", given: Sequences) -> float:
    """The mean probability, at the last `=`, of all symbols of the group that is asked about."""
    return closed(logits(model, given), given)


def altered(given: Sequences) -> Sequences:
    """The same, but every earlier fact that says what is asked says the symbol of x instead (or y's, where x is right)."""
    last = given.facts[:, -1:]
    same = (given.facts[:, :, :2] == last[:, :, :2]).all(-1)
    same[:, -1] = False
    wrong = torch.where(last[..., 0] == last[..., 2], last[..., 1], last[..., 0])
    facts = given.facts.clone()
    facts[..., 2] = torch.where(same, wrong, facts[..., 2])
    return Sequences(given.world, given.symbol, facts)


def effects(model: "Model", given: Sequences, sets: Sequence[Sequence[tuple[int, int]]]) -> list[float]:
    """Of each set of (layer, head): the effect of their z at the last `=`, all at once, on the probability of the answer in sequences whose
    fact was altered.
    """
    other = altered(given)
    answer = (FIRST + given.facts[:, -1, 2])[:, None]
    sites = [at.layers[layer].attn.z(pos=-1) for layer in range(model.n_layers)]
    clean = model.run(given.ids[:, :-1], read=sites)

    def chance(edits: Any = None) -> float:
        return float(logits(model, other, edits).softmax(-1).gather(1, answer).mean())

    def patched(heads: Sequence[tuple[int, int]]) -> float:
        return chance([at.layers[layer].attn.z(head=head, pos=-1).set(clean[sites[layer]][:, head]) for layer, head in heads])

    without = chance()
    return [patched(heads) - without for heads in sets]


def copying(model: "Model", given: Sequences) -> Tensor:
    """[layer, head] that effect of each head alone."""
    every = [[(layer, head)] for layer in range(model.n_layers) for head in range(model.config.num_attention_heads)]
    return torch.tensor(effects(model, given, every)).view(model.n_layers, -1)


def looking(model: "Model", given: Sequences, on: Literal["answer", "separator"] = "answer") -> Tensor:
    """[layer, head] share of the attention at the last `=` on the answers of the facts that say what is asked, mean over rows; or on the
    separators behind these.
    """
    first = 5 if on == "answer" else 6
    same = (given.facts[:, :-1, :2] == given.facts[:, -1:, :2]).all(-1)
    found = list[Tensor]()
    for layer in range(model.n_layers):
        site = at.layers[layer].attn.pattern
        pattern = model.run(given.ids[:, :-1], read=site)[site][:, :, -1, first::5][
            ..., : same.shape[1]
        ].cpu()  # [row, head, fact]
        found.append((pattern * same[:, None]).sum(-1).mean(0))
    return torch.stack(found)


def identity_of(given: Sequences) -> Tensor:
    """[row] the symbol of the identity of the group that is asked about."""
    found = list[int]()
    for row in range(len(given)):
        x = int(given.facts[row, -1, 0])
        products = given.products(row)
        found.append(next(e for e in given.identities(row) if (x, e) in products))
    return torch.tensor(found)


def share(model: "Model", given: Sequences, symbol: Tensor) -> Tensor:
    """[layer, head] mean contribution at the last `=` to the logit of a symbol [row], less that to the mean symbol."""
    heads = [at.layers[layer].attn.head_out(pos=-1) for layer in range(model.n_layers)]
    return _contributions(model, given, symbol, heads)


def share_of_mlps(model: "Model", given: Sequences, symbol: Tensor) -> Tensor:
    """[layer] the same of MLPs."""
    return _contributions(model, given, symbol, [at.layers[layer].mlp.out(pos=-1) for layer in range(model.n_layers)])


def _contributions(model: "Model", given: Sequences, symbol: Tensor, sites: list[Any]) -> Tensor:
    """[site, ...] from values [row, ..., d]."""
    last = at.layers[model.n_layers - 1].resid_post(pos=-1)
    trace = model.run(given.ids[:, :-1], read=[last, *sites])
    inside: Any = model.module.transformer
    gain, words = inside.ln_f.weight.detach(), inside.wte.weight.detach()[FIRST : FIRST + len(SYMBOLS)]
    told = torch.stack([trace[site] for site in sites], 1)  # [row, site, ..., d]
    spread = trace[last].var(-1, unbiased=False).add(inside.ln_f.eps).sqrt()
    each = (told - told.mean(-1, keepdim=True)) / spread.view(-1, *[1] * (told.ndim - 1)) * gain @ words.T
    each = each - each.mean(-1, keepdim=True)
    return torch.stack([row[..., k] for row, k in zip(each.cpu(), symbol.tolist(), strict=True)]).mean(0)


def copiers(model: "Model", enough: float = 0.9) -> list[tuple[int, int]]:
    """The (layer, head) with the largest effects, as many as have that share of what six do together; on sequences to find on."""
    given = asked("copy", FIND_SEED, 64)
    alone = copying(model, given)
    order = [_place(alone, rank) for rank in range(6)]
    found = effects(model, given, [order[:n] for n in range(1, 7)])
    return next((order[:n] for n, effect in enumerate(found, 1) if effect >= enough * found[-1]), order)


def demoter(model: "Model") -> tuple[int, int]:
    """(layer, head) that lowers the identity's logit most where an identity is asked about, on sequences to find on."""
    given = asked("identity", FIND_SEED)
    return _place(-share(model, given, identity_of(given)))


def _place(effects: Tensor, rank: int = 0) -> tuple[int, int]:
    layer, head = divmod(int(effects.flatten().argsort(descending=True)[rank]), effects.shape[1])
    return layer, head


def by_rule(model: "Model", rows: int = 256) -> dict[str, tuple[float, float]]:
    """The share of facts of ordinary sequences that each rule is the first to give, and how many of these are answered right."""
    given, right_at = _ordinary(model, rows)
    rules = [name or "none" for row in coverage(given) for name in row]
    found: dict[str, tuple[float, float]] = {}
    for rule in (*RULES, "none"):
        at_rule = torch.tensor([name == rule for name in rules]).view_as(right_at)
        found[rule] = float(at_rule.float().mean()), float(right_at[at_rule].float().mean())
    return found


def by_place(model: "Model", rows: int = 256) -> dict[int, float]:
    """How many facts of ordinary sequences are answered right, by how many stand before them."""
    _, right_at = _ordinary(model, rows)
    return {k: float(right_at[:, k].float().mean()) for k in range(0, FACTS, 5)}


def _ordinary(model: "Model", rows: int) -> tuple[Sequences, Tensor]:
    """Ordinary sequences and [row, fact] whether each is answered right."""
    given = draw(rows, FACTS, torch.Generator().manual_seed(JUDGE_SEED))
    said = model.run(given.ids[:, :-1], read=at.logits)[at.logits][:, 4::5].argmax(-1).cpu()
    return given, said == FIRST + given.facts[:, :, 2]
