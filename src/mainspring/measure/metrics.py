"""Numbers that say how a run went. A metric names the sites it looks at, so that a sweep computes nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mainspring.errors import InputError
from mainspring.sites import Site, at
from mainspring.trace import Trace, Values

__all__ = ["Metric", "correct", "kl_divergence", "logit_difference", "probability", "rank", "recovered", "set_difference"]


@dataclass(frozen=True, eq=False)
class Metric:
    """`metric(trace)` gives one number per row.

    It looks at nothing but `sites`, whose values `measure` is given in order, and what `given` holds: constants for all rows, or
    tensors with one entry per row.
    """

    name: str
    sites: tuple[Site, ...]
    measure: Callable[..., Tensor]
    given: tuple[tuple[str, Tensor], ...] = ()
    tokens: tuple[str, ...] = ()
    """Names of what is `given` that are token ids, when the metric looks at the logits of no other tokens."""

    def __call__(self, trace: Trace) -> Tensor:
        return self.measure(*(trace[site] for site in self.sites), **dict(self.given))

    def for_row(self, row: int, batch: int) -> "Metric":
        """The metric of one row of a batch: what is given per row is narrowed to that row's."""
        kept = tuple((k, v[row] if v.ndim and v.shape[0] == batch else v) for k, v in self.given)
        return replace(self, given=kept, sites=tuple(site.of_row(row) for site in self.sites))

    def token_ids(self) -> Tensor | None:
        """The tokens whose logits are looked at, in rising order; None when all are, or when one is counted from the end."""
        if not self.tokens:
            return None
        ids = torch.cat([value.reshape(-1) for name, value in self.given if name in self.tokens]).unique()
        return ids if bool((ids >= 0).all()) else None

    def among(self, ids: Tensor) -> "Metric":
        """The same metric of logits that hold the tokens `ids` alone, in rising order."""
        moved = tuple((name, torch.searchsorted(ids, v) if name in self.tokens else v) for name, v in self.given)
        return replace(self, given=moved)

    def __str__(self) -> str:
        return self.name


def logit_difference(answer: Any, distractor: Any, pos: Any = -1) -> Metric:
    """logit(answer) - logit(distractor) at `pos`. Tokens are one id for all rows, or one per row."""
    site = at.logits(pos=pos)

    def measure(logits: Float[Tensor, "row *rest vocab"], answer: Tensor, distractor: Tensor) -> Float[Tensor, "row *rest"]:
        return _pick(logits, answer) - _pick(logits, distractor)

    given = (("answer", torch.as_tensor(answer)), ("distractor", torch.as_tensor(distractor)))
    return Metric(
        f"logit difference{_named(answer)}{_named(distractor, ' -')}", (site,), measure, given, ("answer", "distractor")
    )


def probability(answer: Any, pos: Any = -1) -> Metric:
    """The probability of a token at `pos`."""
    site = at.logits(pos=pos)

    def measure(logits: Float[Tensor, "row *rest vocab"], answer: Tensor) -> Tensor:
        return _pick(logits.float().softmax(-1), answer)

    return Metric(f"probability{_named(answer, ' of')}", (site,), measure, (("answer", torch.as_tensor(answer)),))


def correct(answer: Any, pos: Any = -1) -> Metric:
    """1 where the likeliest token at `pos` is right, else 0: the mean over rows is the accuracy.

    `answer` is one id for all rows, one per row, or for each row several right ones.
    """
    site, right = at.logits(pos=pos), _sets(answer)

    def measure(logits: Float[Tensor, "row *rest vocab"], answer: Tensor) -> Tensor:
        found = logits.argmax(-1)
        return (found.unsqueeze(-1) == _laid(answer.to(logits.device), found)).any(-1).to(logits.dtype)

    return Metric(f"correct{_named(answer)}", (site,), measure, (("answer", right),))


def rank(answer: Any, pos: Any = -1) -> Metric:
    """How many tokens are likelier than the answer at `pos`, ties counted half: 0 when it is the likeliest."""
    site = at.logits(pos=pos)

    def measure(logits: Float[Tensor, "row *rest vocab"], answer: Tensor) -> Tensor:
        held = _pick(logits, answer).unsqueeze(-1)
        return (logits > held).sum(-1) + ((logits == held).sum(-1) - 1) / 2

    return Metric(f"rank{_named(answer, ' of')}", (site,), measure, (("answer", torch.as_tensor(answer)),))


def set_difference(right: Any, wrong: Any, pos: Any = -1) -> Metric:
    """The probability of all right tokens less that of all wrong ones at `pos`.

    Each is one id for all rows, one per row, or for each row a set of ids; sets may differ in size.
    """
    site = at.logits(pos=pos)

    def measure(logits: Float[Tensor, "row *rest vocab"], right: Tensor, wrong: Tensor) -> Tensor:
        chances = logits.float().softmax(-1)
        return _mass(chances, right) - _mass(chances, wrong)

    return Metric("probability of right less wrong", (site,), measure, (("right", _sets(right)), ("wrong", _sets(wrong))))


def kl_divergence(reference: Trace, pos: Any = -1) -> Metric:
    """KL(reference || run) of the next-token distributions at `pos`, in nats; 0 when nothing changed."""
    site = at.logits(pos=pos)
    held = reference[site] if site in reference else Values({site.bare: reference.logits}, reference.read.rows)[site]

    def measure(logits: Float[Tensor, "row *rest vocab"], goal: Tensor) -> Tensor:
        found = logits.float().log_softmax(-1)
        return (goal.exp() * (goal - found)).sum(-1).expand(found.shape[:-1])

    return Metric("KL divergence", (site,), measure, (("goal", held.float().log_softmax(-1)),))


def recovered(metric: Metric, clean: float | Tensor, corrupted: float | Tensor) -> Metric:
    """A metric on the scale where the corrupted run is 0 and the clean run is 1."""
    clean, corrupted = torch.as_tensor(clean), torch.as_tensor(corrupted)
    if bool((clean == corrupted).any()):
        raise InputError(f"the clean and the corrupted run have the same {metric.name}, so nothing can be recovered")

    def measure(*values: Tensor, clean: Tensor, corrupted: Tensor, **given: Tensor) -> Tensor:
        return (metric.measure(*values, **given) - corrupted) / (clean - corrupted)

    given = (*metric.given, ("clean", clean), ("corrupted", corrupted))
    return Metric(f"recovered {metric.name}", metric.sites, measure, given, metric.tokens)


def _pick(values: Tensor, token: Any) -> Tensor:
    """Entries of the last axis: one index for all rows, or one per row."""
    index = torch.as_tensor(token, device=values.device)
    if index.ndim == 0:
        return values[..., int(index)]
    if index.shape[0] != values.shape[0]:
        raise InputError(f"{index.shape[0]} answer tokens were given for {values.shape[0]} rows")
    return values.gather(-1, index.reshape(-1, *[1] * (values.ndim - 1)).expand(*values.shape[:-1], 1)).squeeze(-1)


def _named(token: Any, word: str = "") -> str:
    """A token for the name of a metric; tokens that differ by row have no place there."""
    value = torch.as_tensor(token) if not isinstance(token, tuple | list) else None
    return f"{word} {int(value)}" if value is not None and value.ndim == 0 else ""


def _sets(tokens: Any) -> Tensor:
    """[row, token] (or [1]) ids; rows with fewer are filled up with -1, which is no token."""
    if isinstance(tokens, Sequence) and any(isinstance(row, Sequence) for row in tokens):
        rows = [list(row) for row in tokens]
        width = max(1, *map(len, rows))
        return torch.tensor([row + [-1] * (width - len(row)) for row in rows])
    ids = torch.as_tensor(tokens)
    return ids.unsqueeze(-1) if ids.ndim < 2 else ids


def _laid(sets: Tensor, like: Tensor) -> Tensor:
    """Sets of ids with as many axes as `like` has before theirs; one set alone serves all rows."""
    if sets.ndim == 1:
        return sets
    if len(sets) != len(like):
        raise InputError(f"answers of {len(sets)} rows were given for {len(like)} rows")
    return sets.reshape(len(sets), *[1] * (like.ndim - 1), -1)


def _mass(chances: Tensor, sets: Tensor) -> Tensor:
    index = _laid(sets.to(chances.device), chances[..., 0])
    index = index.expand(*chances.shape[:-1], index.shape[-1])
    return (chances.gather(-1, index.clamp(min=0)) * (index >= 0)).sum(-1)
