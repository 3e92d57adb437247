"""The weights of one head, before layer norm's constant and the head's private rotations.

    score(p, j) = S * related(q[p], k[j]) + (sink + drive[p]) * opens[j] + ramp * j

    unique   S = 2 beta, sink = beta                     a match beats the opening token by beta, that the rest
    latest   ramp = beta per position, S and sink larger by the ramp's range
    first    the same, falling
    backup   drive = S + range, as long as the primary head has written: it looks at the opening token and
             writes a constant nobody reads

Offsets: with position codes, a shift relates position p to p - k. With rotary position alone, a constant query
and key whose phases differ by k * theta give  score = W * sum_i w_i cos((p - j - k) theta_i),  largest at k.
Ramps: with position codes, their index; with rotary, the slowest frequency a quarter turn ahead, sin(theta (p - j)).

What it does not do: learned or soft relations; attention sharper at one place than another.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.organisms.codes import Code
from mainspring.organisms.variables import Select

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Attention", "Rotary", "copied", "look", "matching", "previous", "shifted"]


@dataclass(frozen=True, eq=False)
class Attention:
    """Content queries and keys `q, k` [d, n] with biases [n], and constant rotary ones `q_turn, k_turn` [2, R / 2]."""

    q: "Tensor"
    q_bias: "Tensor"
    k: "Tensor"
    k_bias: "Tensor"
    q_turn: "Tensor | None" = None
    k_turn: "Tensor | None" = None


@dataclass(frozen=True, eq=False)
class Rotary:
    """The rotary frequencies of a host, [R / 2]."""

    theta: "Tensor"
    length: int

    def turns(self, phase: "Tensor", weight: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Constant query and key with score(delta) = sum_i weight_i cos(phase_i + delta * theta_i)."""
        import torch

        root = weight.abs().sqrt()
        q = torch.stack([root * phase.cos(), root * phase.sin()])
        return q, torch.stack([root, torch.zeros_like(root)])


def matching(query: "Tensor", key: "Tensor", related: "Tensor", exact: bool = True) -> "Tensor":
    """[r_q, r_k]: A with  query A key' = related  where words are related, and at most a quarter elsewhere.

    Exact for one-hot codes; for crowded codes by alternating projections. Fails when there is no room. Unless `exact`,
    a related pair may score more than 1.
    """
    import torch

    left, right = torch.linalg.pinv(query), torch.linalg.pinv(key).T
    target = related
    middle = left @ target @ right
    for _ in range(3000):
        score = query @ middle @ key.T
        over = (score - 1).clamp(min=0.0) if exact else torch.zeros_like(score)
        error = torch.where(related > 0, over + (1 - score).clamp(min=0.0), score)
        if error.max() <= 0.25:
            return middle
        wanted = torch.ones_like(score) if exact else score.clamp(min=1.0)
        target = torch.where(related > 0, wanted, score.clamp(max=0.2))
        middle = left @ target @ right
    raise ValueError("the codes are too crowded for this relation; use more dimensions (superposition nearer to 1)")


def look(
    spec: Select,
    query: Code | None,
    key: Code,
    opens: "Tensor",
    beta: float,
    ramp: "Tensor | None",
    rotary: Rotary | None,
    presence: "Tensor | None",
    spread: int,
) -> Attention:
    """A content head. `opens` [d] reads "opens the sequence"; `ramp` [d] reads the index of the position, in hosts
    that have one; `presence` [d] reads 1 while the primary head has written; `spread` is the largest distance.
    """
    import torch

    related = torch.zeros(1 if query is None else len(query.labels), len(key.labels), dtype=torch.float64)
    queries = ("*",) if query is None else query.labels
    pairs = spec.match or tuple((word, word) for word in queries)
    for q_word, k_word in pairs:
        if q_word in queries and k_word in key.labels:
            related[queries.index(q_word), key.index(k_word)] = 1.0
    one = torch.ones(1, 1, dtype=torch.float64)
    middle = matching(one if query is None else query.geometry, key.geometry, related, exact=spec.which != "unique")

    span, q_turn, k_turn = 0.0, None, None
    rows_q: list[Tensor] = []
    rows_k: list[Tensor] = []
    sign = {"unique": 0.0, "latest": 1.0, "first": -1.0}[spec.which]
    zero = torch.zeros_like(opens)
    if sign and rotary is not None:
        slow = rotary.theta.argmin()
        turn = rotary.theta[slow]
        weight = torch.zeros_like(rotary.theta)
        weight[slow] = beta / (turn * torch.cos(turn * spread))
        span = float(weight[slow])
        quarter = torch.full_like(weight, sign * torch.pi / 2)
        q_turn, k_turn = rotary.turns(quarter, weight)
    elif sign:
        if ramp is None:
            raise ValueError("a host without positions and without rotary cannot break ties")
        span = beta * spread
        rows_q, rows_k = [zero], [sign * beta * ramp]
    # How far crowded codes are from the relation eats into both margins.
    query_codes = one if query is None else query.geometry
    got = query_codes @ middle @ key.geometry.T
    short = float((1 - got)[related > 0].max().clamp(min=0.0))
    stray = float(got[related == 0].max().clamp(min=0.0)) if bool((related == 0).any()) else 0.0
    strength = (span + 2 * beta) / (1 - short - stray)
    sink = strength * stray + beta + (span if sign > 0 else 0.0)
    root = strength**0.5
    content_q = torch.zeros(len(opens), middle.shape[1], dtype=torch.float64)
    bias_q = root * middle[0] if query is None else torch.zeros(middle.shape[1], dtype=torch.float64)
    if query is not None:
        content_q = root * query.reader @ middle
    drive = zero if presence is None else (strength + span + beta) * presence
    q = torch.cat([content_q, torch.stack([drive, *rows_q], dim=1)], dim=1)
    q_bias = torch.cat([bias_q, torch.tensor([sink, *(1.0 for _ in rows_q)], dtype=torch.float64)])
    k = torch.cat([root * key.reader, torch.stack([opens, *rows_k], dim=1)], dim=1)
    return Attention(q, q_bias, k, torch.zeros_like(q_bias), q_turn, k_turn)


def shifted(labels: tuple[str, ...], offset: int) -> tuple[tuple[str, str], ...]:
    """The relation of each position to the one `offset` earlier."""
    return tuple(zip(labels[offset:], labels, strict=False))


def previous(offset: int, rotary: Rotary, beta: float, width: int) -> Attention:
    """A head that looks `offset` positions back by rotary phases alone.

    The weights of the frequencies are searched for the largest margin over all distances; before the
    offset is reached, the farthest position (the opening token) must win by the same margin.
    """
    import torch

    generator = torch.Generator().manual_seed(offset)
    delta = torch.arange(rotary.length, dtype=torch.float64)
    waves = torch.cos((delta[:, None] - offset) * rotary.theta)
    tries = torch.rand(4000, len(rotary.theta), dtype=torch.float64, generator=generator) ** 2
    tries = tries / tries.sum(1, keepdim=True)
    kernel = tries @ waves.T
    others = kernel.clone()
    others[:, offset] = -torch.inf
    margin = kernel[:, offset] - others.max(1).values
    for p in range(1, offset):
        margin = torch.minimum(margin, kernel[:, p] - kernel[:, :p].max(1).values)
    best = margin.argmax()
    if margin[best] < 0.02:
        raise ValueError(f"rotary frequencies {rotary.theta.tolist()} cannot tell offset {offset} from its neighbours")
    q_turn, k_turn = rotary.turns(-offset * rotary.theta, tries[best] * beta / margin[best])
    none, flat = torch.zeros(width, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    return Attention(none, flat, none, flat, q_turn, k_turn)


def copied(value: Code, out: Code, share: float, nowhere: "tuple[str, Tensor] | None") -> tuple["Tensor", "Tensor"]:
    """What a head moves: v [d, r] reads the value's coordinates, o [r, d] writes the out code, `share` of it.

    `nowhere` (word, direction) sends one word to a direction nobody reads: a silent backup.
    """
    import torch

    written = share * out.vectors
    if nowhere is not None:
        written = written.clone()
        written[value.index(nowhere[0])] = share * out.amplitude * nowhere[1]
    o = torch.linalg.pinv(value.geometry) @ written
    if (value.geometry @ o - written).abs().max() > 1e-6:
        raise ValueError("a head cannot map these crowded codes linearly; use superposition=1 with backups")
    return value.reader, o
