"""The units of an MLP: one per row of a table, two per word of a gate's branches, two per cut of a mean.

    row     act(kappa * (sum_i <word_i, x_i> - (n - 1/2)))        is kappa / 2 on the row and 0 off it
    step    act(K (x - cut) + c) - act(K (x - cut) - c)           is 0 below the cut and 2 c above it

Exact for GELU and its tanh form because every argument is far from zero. Rows that give the default need no unit.

What it does not do: tables whose inputs overlap by half or more in superposition.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.organisms.codes import Code
from mainspring.organisms.variables import Aggregate, Gate, Table, Variable

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = ["Units", "idle_units", "units_of"]

STEP = 8.0


@dataclass(frozen=True, eq=False)
class Units:
    """Neurons: `w_in` [d, m], `b_in` [m], `w_out` [m, d], `b_out` [d], and what each stands for."""

    w_in: "Tensor"
    b_in: "Tensor"
    w_out: "Tensor"
    b_out: "Tensor"
    rows: tuple[tuple[str, ...], ...]


def units_of(spec: Variable, codes: Mapping[str, Code], out: Code, kappa: float, means: tuple[float, ...]) -> Units:
    """The units that compute a Table, a Gate or the bins of an Aggregate (whose head wrote the code `mean`)."""
    match spec:
        case Table():
            return _table(spec, codes, out, kappa)
        case Gate():
            return _gate(spec, codes, out, kappa)
        case Aggregate():
            return _bins(spec, codes["mean"], out, means)
        case _:
            raise TypeError(f"no MLP computes a {type(spec).__name__}")


def _word(code: Code, word: str) -> "Tensor":
    return code.reader @ code.geometry[code.index(word)]


def _table(spec: Table, codes: Mapping[str, Code], out: Code, kappa: float) -> Units:
    import torch

    default = out.vectors[out.index(spec.default)]
    rows = [(key, word) for key, word in spec.rows if word != spec.default]
    rows = [(key, word) for key, word in rows if _known(key, spec.inputs, codes)]
    w_in = torch.zeros(len(default), len(rows), dtype=torch.float64)
    w_out = torch.zeros(len(rows), len(default), dtype=torch.float64)
    for u, (key, word) in enumerate(rows):
        read = sum((_word(codes[name], w) for name, w in zip(spec.inputs, key, strict=True)), 0 * default)
        w_in[:, u] = kappa * read
        w_out[u] = (out.vectors[out.index(word)] - default) / (0.5 * kappa)
    b_in = torch.full((len(rows),), -kappa * (len(spec.inputs) - 0.5), dtype=torch.float64)
    return Units(w_in, b_in, w_out, default, tuple(key for key, _ in rows))


def _known(key: tuple[str, ...], inputs: tuple[str, ...], codes: Mapping[str, Code]) -> bool:
    return all(word in codes[name].labels for name, word in zip(inputs, key, strict=True))


def _gate(spec: Gate, codes: Mapping[str, Code], out: Code, kappa: float) -> Units:
    import torch

    condition, then, otherwise = codes[spec.condition], codes[spec.then], codes[spec.otherwise]
    is_so = condition.reader @ condition.mark(spec.among)
    chosen = [(+1.0, then, word) for word in then.labels] + [(-1.0, otherwise, word) for word in otherwise.labels]
    w_in = torch.stack([kappa * (sign * is_so + _word(code, word)) for sign, code, word in chosen], dim=1)
    # The second branch reads "not so" as one minus "so".
    b_in = torch.tensor([-kappa * (1.5 if sign > 0 else 0.5) for sign, _, _ in chosen], dtype=torch.float64)
    w_out = torch.stack([out.vectors[out.index(word)] / (0.5 * kappa) for _, _, word in chosen])
    rows = tuple((spec.then if sign > 0 else spec.otherwise, word) for sign, _, word in chosen)
    return Units(w_in, b_in, w_out, torch.zeros(w_in.shape[0], dtype=torch.float64), rows)


def _bins(spec: Aggregate, mean: Code, out: Code, means: tuple[float, ...]) -> Units:
    import torch

    read = mean.reader[:, 0]
    w_in: list[Tensor] = []
    b_in: list[float] = []
    w_out: list[Tensor] = []
    for i, cut in enumerate(spec.cuts):
        margin = min(abs(value - cut) for value in means)
        if margin < 1e-4:
            raise ValueError(f"a mean of exactly {cut} occurs; move the cut between two means that occur")
        slope = 2 * STEP / margin
        step = (out.vectors[out.index(spec.bins[i + 1])] - out.vectors[out.index(spec.bins[i])]) / (2 * STEP)
        for sign in (+1.0, -1.0):
            w_in.append(slope * read)
            b_in.append(-slope * cut + sign * STEP)
            w_out.append(sign * step)
    start = out.vectors[out.index(spec.bins[0])]
    rows = tuple((f"{side}{cut:.4f}",) for cut in spec.cuts for side in ("above ", "past "))
    return Units(torch.stack(w_in, dim=1), torch.tensor(b_in, dtype=torch.float64), torch.stack(w_out), start, rows)


def idle_units(count: int, codes: list[Code], kappa: float, scale: float, generator: "Generator") -> Units:
    """Units that look like rows of a table but never fire: they read one word and ask for more than it can give."""
    import torch

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    width = codes[0].basis.shape[1]
    w_in = torch.zeros(width, count, dtype=torch.float64)
    for u in range(count):
        code = codes[pick(len(codes))]
        w_in[:, u] = kappa * _word(code, code.labels[pick(len(code.labels))])
    w_out = torch.randn(count, width, dtype=torch.float64, generator=generator)
    w_out = scale * (w_out - w_out.mean(1, keepdim=True)) / width**0.5
    bias = torch.full((count,), -1.5 * kappa, dtype=torch.float64)
    return Units(w_in, bias, w_out, torch.zeros(width, dtype=torch.float64), ((),) * count)
