"""Decoys: heads and MLPs beside the circuit that do the same kind of work for nobody.

A decoy head has the same kind of specification as a real one (often the very same attention), is as hard, copies real
values and writes them with a norm from the same range; a decoy MLP looks up real values. What they write lies in
subspaces that nothing reads, and changes from input to input about as often as what real parts write. So a part is not
important because it is big, sharp or busy: the norm of activations is a null method.

What it does not do: match how much each part changes exactly (in an early layer there may be nothing to read that
changes enough).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

from mainspring.organisms.variables import Previous, Select, Table, Values, Variable, evaluate

__all__ = ["amplitudes", "closest", "decoy_head", "decoy_table", "restlessness"]


def restlessness(rows: Sequence[Values]) -> tuple[float, float]:
    """How often a variable differs between two inputs: over all positions, and at the last one."""
    pairs = [(a, b) for a, b in pairwise(rows) if len(a) == len(b)]
    if not pairs:
        return 0.0, 0.0
    everywhere = [x != y for a, b in pairs for x, y in zip(a, b, strict=True)]
    return sum(everywhere) / len(everywhere), sum(a[-1] != b[-1] for a, b in pairs) / len(pairs)


def decoy_head(
    real: Sequence[Variable], available: Mapping[str, Values], classes: Sequence[Values], random: Random
) -> Previous | Select:
    """A head that reads what is available at its layer.

    It keeps the query, key and relation of a real head, so that it attends as the real one does, and copies the same
    value or another; or it looks a few positions back; or for the latest of a class of words.
    """
    names = sorted(available)
    possible = [head for head in real if isinstance(head, Previous | Select)]
    kind = random.random()
    if possible and kind < 0.6:
        chosen = random.choice(possible)
        if isinstance(chosen, Select):
            value = chosen.value if chosen.value in available else random.choice(names)
            return replace(chosen, value=random.choice((value, *names)))
    if kind < 0.8:
        return Previous(random.choice(names), random.randint(1, 4))
    key = random.choice(names)
    fitting = [words for words in classes if set(words) <= set(available[key])]
    words = random.choice(fitting) if fitting else available[key][1:]
    match = tuple(("*", word) for word in words)
    return Select(key=key, value=random.choice(names), match=match, which=random.choice(("latest", "first")))


def decoy_table(real: Sequence[Variable], available: Mapping[str, Values], random: Random) -> Table:
    """A lookup of real values into meaningless ones: with the keys of a real table, or of one variable."""
    words = [f"decoy{i}" for i in range(8)]
    possible = [table for table in real if isinstance(table, Table)]
    if possible and random.random() < 0.5:
        chosen = random.choice(possible)
        inputs, keys = chosen.inputs, [key for key, _ in chosen.rows]
    else:
        source = random.choice(sorted(available))
        inputs, keys = (source,), [(word,) for word in available[source]]
    rows = tuple((key, random.choice(words)) for key in keys)
    return Table(inputs, rows, default=random.choice(words))


def closest(
    candidates: Sequence[Variable],
    target: tuple[float, float],
    runs: Sequence[Mapping[str, Values]],
    token: str,
) -> Variable:
    """The candidate that changes from input to input about as often as a real part does."""

    def distance(candidate: Variable) -> float:
        rows = [evaluate(candidate, run[token], run) for run in runs]
        everywhere, last = restlessness(rows)
        return abs(everywhere - target[0]) + abs(last - target[1])

    return min(candidates, key=distance)


def amplitudes(real: int, decoys: int, spread: float, random: Random) -> tuple[list[float], list[float]]:
    """Norms for the real parts and for the decoys, from one range, so that size says nothing about importance.

    Draws are repeated until the area under the curve of "bigger is real" lies between 0.4 and 0.5.
    """
    while True:
        ours = [1 + spread * random.uniform(-1, 1) for _ in range(real)]
        theirs = [1 + spread * random.uniform(-1, 1) for _ in range(decoys)]
        bigger = sum(a > b for a in ours for b in theirs)
        # With one or two parts on a side no draw lies in the range; then any draw with the decoys ahead will do.
        least = 0.4 if real * decoys >= 10 else 0.0
        if not spread or least * real * decoys <= bigger <= 0.5 * real * decoys:
            return ours, theirs
