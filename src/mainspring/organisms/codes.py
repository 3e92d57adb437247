"""How a value looks in the residual stream: a unit vector in a subspace of its own.

    code(v) = amplitude * geometry[v] @ basis        coordinates(x) = basis @ x / amplitude

`basis` holds orthonormal rows, orthogonal to the all-ones vector and to every other code's basis, so that
a state made of codes has mean zero and its squared norm is the sum of the squared amplitudes: layer norm
divides by a constant known in advance. `geometry` is the identity (one-hot), or, in superposition, unit
vectors in fewer dimensions than there are values.

What it does not do: superposition of different variables in one subspace.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

_COMMON = 0.15  # share of the squared norm of a crowded code that its whole class has in common

__all__ = ["Code", "crowded", "orthonormal", "rotation"]


@dataclass(frozen=True, eq=False)
class Code:
    """The code of one variable. `geometry` [value, r], `basis` [r, d], both float64."""

    labels: tuple[str, ...]
    geometry: "Tensor"
    basis: "Tensor"
    amplitude: float

    @property
    def vectors(self) -> "Tensor":
        """[value, d]: what is written for each value."""
        return self.amplitude * self.geometry @ self.basis

    @property
    def reader(self) -> "Tensor":
        """[d, r]: the map from a state to coordinates."""
        return self.basis.T / self.amplitude

    def mark(self, words: tuple[str, ...]) -> "Tensor":
        """[r]: reads 1 from the coordinates of these words and (nearly, in superposition) 0 from the others."""
        import torch

        wanted = torch.tensor([float(label in words) for label in self.labels], dtype=torch.float64)
        reader = torch.linalg.pinv(self.geometry) @ wanted
        if (self.geometry @ reader - wanted).abs().max() > 0.25:
            raise ValueError(f"crowded codes cannot tell {words} from the rest; use superposition nearer to 1")
        return reader

    def index(self, word: str) -> int:
        return self.labels.index(word)


def rotation(size: int, generator: "Generator") -> "Tensor":
    """A random orthogonal matrix, uniform over the group."""
    import torch

    q, r = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def orthonormal(width: int, generator: "Generator", rotated: bool) -> "Tensor":
    """Orthonormal rows orthogonal to the all-ones vector: all `width - 1` of them at random, or, when not
    rotated, the `width // 2` differences of neighbouring axes, which lie almost on the neuron axes.
    """
    import torch

    if not rotated:
        pairs = torch.zeros(width // 2, width, dtype=torch.float64)
        rows = torch.arange(width // 2)
        pairs[rows, 2 * rows], pairs[rows, 2 * rows + 1] = 0.5**0.5, -(0.5**0.5)
        return pairs
    frame = torch.randn(width, width, dtype=torch.float64, generator=generator)
    frame[:, 0] = 1.0
    return torch.linalg.qr(frame).Q.T[1:].contiguous()


def crowded(classes: Sequence[Sequence[int]], share: float, generator: "Generator") -> "Tensor":
    """[values, r]: unit vectors with fewer dimensions than values, `share` of a dimension for each.

    Each class of values has a subspace of its own. All codes of a class share a small component, so that the class as
    a whole can be read linearly; the rest is spread by repulsion. Up to two values per dimension fit with no positive
    overlap (as opposite directions), which is what later thresholds need. Classes of fewer than four stay one-hot.
    """
    import torch

    values = sum(len(members) for members in classes)
    blocks: list[Tensor] = []
    for members in classes:
        size = max(3, round(share * len(members)))
        if len(members) < 4 or size >= len(members):
            blocks.append(torch.eye(len(members), dtype=torch.float64))
            continue
        points = torch.randn(len(members), size - 1, dtype=torch.float64, generator=generator)
        for _ in range(2000):
            points = points / points.norm(dim=1, keepdim=True)
            overlap = points @ points.T
            overlap.fill_diagonal_(0.0)
            points = points - 0.2 * (overlap.clamp(min=0.0) ** 2) @ points
        points = points / points.norm(dim=1, keepdim=True)
        common = torch.full((len(members), 1), _COMMON**0.5, dtype=torch.float64)
        blocks.append(torch.cat([common, (1 - _COMMON) ** 0.5 * points], dim=1))
    geometry = torch.zeros(values, sum(block.shape[1] for block in blocks), dtype=torch.float64)
    at = 0
    for members, block in zip(classes, blocks, strict=True):
        geometry[list(members), at : at + block.shape[1]] = block
        at += block.shape[1]
    return geometry
