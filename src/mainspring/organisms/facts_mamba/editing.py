"""One fact written anew by a change of rank one of a mixer's output matrix W, worked out and tried on sites: no weight is touched.

    k    the key: what W reads (`ssm.y`) at a role of the prompt, a mean over prefixes
    d    what `ssm.out` lacks there for the new object to be said, found by gradient descent through the run on
         -log p(new object) + 0.0625 KL(before, after) on the subject's other relations + 0.5 (|d| / |W k|)^2
    W'   W + d u^T / (u . k),    u = C^-1 k,    C the mean of y y^T over the taught prompts

The output of W' is that of W plus d (u . y) / (u . k), token by token: an edited model is a run with that added at `ssm.out`.

What it does not do: edit several facts at once, or write weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from mainspring.organisms.facts.measures import taught
from mainspring.sites import at
from mainspring.tasks.facts import FACTS, OBJECT_IDS, PREFIXES, RELATIONS, SHAPES, SUBJECTS, Prompts, prompts

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["EDITED", "Outcome", "Rewrite", "drawn", "edited", "outcome", "rewrite"]

EDITED = 1
"""The layer whose edits do best on the find facts; they leave more of the same person's other facts than those of layer 0."""

STEPS, RATE, NEAR, SMALL, LONGEST = 20, 0.5, 0.0625, 0.5, 3.0
"""Of the descent: steps, Adam's rate, the weights of both penalties, and how many times |W k| the change may be."""
END = at.logits(pos=-1)


@dataclass(frozen=True, eq=False)
class Rewrite:
    """New objects of facts, each edited for itself: `keys` [fact, channel] are u / (u . k), `values` [fact, dim] d."""

    layer: int
    shape: int
    subject: Tensor
    relation: Tensor
    old: Tensor
    new: Tensor
    keys: Tensor
    values: Tensor

    def scores(self, model: "Model", given: Prompts, fact: Tensor) -> Tensor:
        """[row, vocab]: log-probabilities behind each prompt in the model edited for the row's fact."""
        y = at.layers[self.layer].ssm.y
        read = model.run(given.ids, read=y)[y]
        fired = torch.einsum("bpc,bc->bp", read, self.keys[fact])
        change = at.layers[self.layer].ssm.out.add(fired[..., None] * self.values[fact][:, None])
        return model.run(given.ids, edits=change, read=END)[END].log_softmax(-1)


@dataclass(frozen=True)
class Outcome:
    """Shares: the new object is likelier than the old in the edited prompt, and in others about the same fact; the old is likelier still
    for other subjects that have it; other facts of the same subject are said as before.
    """

    rewritten: float
    paraphrases: float
    neighbours: float
    other_relations: float


def drawn(seed: int, count: int) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """(shape, subject, relation, new object) of facts to rewrite, as many in every shape."""
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[int, Tensor, Tensor, Tensor]] = []
    for shape in range(len(SHAPES)):
        fact = torch.randperm(FACTS.numel(), generator=generator)[:count]
        subject, relation = fact // len(RELATIONS), fact % len(RELATIONS)
        moved = torch.randint(1, OBJECT_IDS.shape[1], (count,), generator=generator)
        found.append((shape, subject, relation, (FACTS[subject, relation] + moved) % OBJECT_IDS.shape[1]))
    return found


def second_moment(model: "Model", layer: int) -> Tensor:
    """The mean of y y^T over all tokens of the taught prompts, [channel, channel] in float64."""
    site = at.layers[layer].ssm.y
    read = [model.run(batch.ids, read=site)[site].flatten(0, 1).double() for batch in taught()]
    return sum((y.T @ y for y in read), torch.zeros(())) / sum(len(y) for y in read)


def rewrite(model: "Model", asked: tuple[int, Tensor, Tensor, Tensor], layer: int, role: str, moment: Tensor) -> Rewrite:
    """The edits of these facts at one layer, keyed and changed at a role: "first", "last" or "end"."""
    shape, subject, relation, new = asked
    given = [prompts(shape, prefix, subject, relation) for prefix in PREFIXES]
    read = [at.layers[layer].ssm.y, at.layers[layer].ssm.out]
    seen = [model.run(batch.ids, read=[site(pos=_place(batch, role)) for site in read]) for batch in given]
    key, start = (
        torch.stack([trace[site(pos=_place(batch, role))] for trace, batch in zip(seen, given, strict=True)]).mean(0)
        for site in read
    )
    wanted = OBJECT_IDS[relation, new]
    others = [given[0].of(subject, (relation + turn) % len(RELATIONS)) for turn in range(1, len(RELATIONS))]
    before = [model.run(batch.ids, read=END)[END].log_softmax(-1) for batch in others]
    d = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([d], lr=RATE)
    limit = LONGEST * start.norm(dim=-1, keepdim=True)

    def after(batch: Prompts) -> Tensor:
        change = at.layers[layer].ssm.out(pos=_place(batch, role)).add(d)
        return model.run(batch.ids, edits=change, read=END, differentiable=True)[END].log_softmax(-1)

    for step in range(STEPS):
        hit = torch.stack([after(batch).gather(1, wanted[:, None]) for batch in given]).mean(0)
        turn = step % len(others)
        far = kl_div(after(others[turn]), before[turn], log_target=True, reduction="none").sum(-1)
        loss = -hit.sum() + NEAR * far.sum() + SMALL * (d.norm(dim=-1) / start.norm(dim=-1)).square().sum()
        (d.grad,) = torch.autograd.grad(loss, d)
        optimizer.step()
        with torch.no_grad():
            d.mul_((limit / d.norm(dim=-1, keepdim=True)).clamp(max=1))
    ridge = 1e-6 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    u = torch.linalg.solve(moment + ridge, key.double().T).T
    keys = (u / (u * key).sum(-1, keepdim=True)).to(key.dtype)
    old = OBJECT_IDS[relation, FACTS[subject, relation]]
    return Rewrite(layer, shape, subject, relation, old, wanted, keys, d.detach())


def edited(model: "Model", asked: Sequence[tuple[int, Tensor, Tensor, Tensor]], layer: int, role: str) -> Outcome:
    """What rewriting these facts at one place does."""
    moment = second_moment(model, layer)
    return outcome(model, [rewrite(model, group, layer, role, moment) for group in asked])


def outcome(model: "Model", made: Sequence[Rewrite]) -> Outcome:
    """What the edits did, over all facts and prompts."""
    rewritten, paraphrases, neighbours, kept = (list[Tensor]() for _ in range(4))
    for one in made:
        every = torch.arange(len(one.subject))
        for shape in range(len(SHAPES)):
            better = _likelier(one.scores(model, prompts(shape, "", one.subject, one.relation), every), one, every)
            (rewritten if shape == one.shape else paraphrases).append(better)
        fact, subject = _neighbours(one)
        found = one.scores(model, prompts(one.shape, "", subject, one.relation[fact]), fact)
        neighbours.append(~_likelier(found, one, fact))
        for turn in range(1, len(RELATIONS)):
            other = prompts(one.shape, "", one.subject, (one.relation + turn) % len(RELATIONS))
            kept.append(one.scores(model, other, every).argmax(-1) == other.answer)
    return Outcome(*(float(torch.cat(part).float().mean()) for part in (rewritten, paraphrases, neighbours, kept)))


def _likelier(scores: Tensor, made: Rewrite, fact: Tensor) -> Tensor:
    new, old = (scores.gather(1, tokens[fact][:, None])[:, 0] for tokens in (made.new, made.old))
    return new > old


def _neighbours(made: Rewrite, most: int = 10) -> tuple[Tensor, Tensor]:
    """(fact, subject) of other subjects with the old object."""
    found = [
        (fact, subject)
        for fact, (who, relation) in enumerate(zip(made.subject.tolist(), made.relation.tolist(), strict=True))
        for subject in [s for s in range(len(SUBJECTS)) if s != who and FACTS[s, relation] == FACTS[who, relation]][:most]
    ]
    fact, subject = torch.tensor(found).T
    return fact, subject


def _place(given: Prompts, role: str) -> Any:
    return given.ids.shape[1] - 1 if role == "end" else getattr(given, role)
