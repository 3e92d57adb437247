"""How hard a planted circuit is to find: the dials, each seeded by `plant`.

What it does not do: anything by itself; `layout`, `codebook` and `compile` read the dials, `decoys` makes the decoys.
"""

from dataclasses import dataclass

__all__ = ["Disguise"]


@dataclass(frozen=True)
class Disguise:
    """The dials. Each acts at random under the seed of `plant`.

    rotate, rotate_heads    codes off the neuron axes; random rotations inside each head (query-key and value-output)
    permute, rescale        neurons in random order; each with a gain of its own, undone where it writes
    heads, layers           at least so many heads in a layer; so many layers more than the program needs
    decoys                  fill every unused head and MLP with a decoy (else they are idle)
    backups                 variables with a second head, silent unless the first one writes nothing
    splits                  (variable, k): k heads that carry a k-th of the variable each
    superposition           dimensions per value: 1 is one-hot, 0.6 puts 10 values into 6 dimensions
    noise                   Gaussian weight noise, relative to the typical size of each matrix's entries
    beta                    margin of every attention choice in logits; exp(-beta) leaks. At 60 the gradient through
                            the softmax is far below float32 noise: no first-order method sees a head that acts
                            only on where another head looks. At 5.5 the leak is 0.4 % and they do; 4 is soft
    anchor                  norm of a constant part of the residual stream, as trained models have one. Without it
                            a gradient through layer norm credits every part that changes with a change of norm
    kappa                   sharpness of the units of a table
    spread                  norms of what parts write lie in [1 - spread, 1 + spread]
    """

    rotate: bool = True
    rotate_heads: bool = True
    permute: bool = True
    rescale: bool = True
    heads: int = 4
    layers: int = 1
    decoys: bool = True
    backups: tuple[str, ...] = ()
    splits: tuple[tuple[str, int], ...] = ()
    superposition: float = 1.0
    noise: float = 0.0
    beta: float = 5.5
    anchor: float = 24.0
    kappa: float = 80.0
    spread: float = 0.15

    @classmethod
    def none(cls) -> "Disguise":
        """Everything in plain sight."""
        return cls(rotate=False, rotate_heads=False, permute=False, rescale=False, layers=0, decoys=False, spread=0.0)
