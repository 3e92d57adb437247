"""Organisms that were trained: their recipe, their truth as data, and the measurement that keeps the truth true.

    RECIPE = TrainedRecipe("copy", "token and concept induction", train, verify, minutes=25)      in copy/recipe.py
    verify_trained("src/mainspring/organisms/copy")                                              measures every check again

A recipe is two functions: `train(folder, seed, device, progress)` makes the organism's folder, and `verify(model)`
measures by intervention what the truth says, as checks with bars. A trained mechanism emerged; what is claimed of it
is what the checks measure, and no more.

What it does not do: find the mechanism, or say that nothing else in the model could carry it.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from mainspring.errors import MainspringError, TruthMalformed
from mainspring.organisms.checkpoint import write_json
from mainspring.organisms.training import Progress
from mainspring.organisms.truth import Edge, Node

if TYPE_CHECKING:
    from mainspring.models.model import Model

__all__ = ["Check", "ChecksFailed", "Place", "TrainedRecipe", "TrainedTruth", "TruthMalformed", "recipe_of", "verify_trained"]

Train: TypeAlias = Callable[[Path, int, str, Progress | None], None]
Json: TypeAlias = dict[str, Any]

VERSION = 1


@dataclass(frozen=True)
class Check:
    """A measured value and the bar that it has to reach (">=") or stay under ("<=")."""

    name: str
    value: float
    bar: float
    sense: Literal[">=", "<="]
    note: str = ""

    def __post_init__(self) -> None:
        if self.sense not in (">=", "<="):
            raise ValueError(f"the sense of a check is '>=' or '<=', not {self.sense!r}")

    @property
    def holds(self) -> bool:
        """False also for a value that is not a number."""
        return self.value >= self.bar if self.sense == ">=" else self.value <= self.bar

    def __str__(self) -> str:
        return f"{self.name} is {self.value:.4g}, bar {self.sense} {self.bar:g}"


class ChecksFailed(MainspringError, ValueError):
    """A trained organism whose truth does not hold; `checks` are all that were measured, `failed` those that break the truth."""

    def __init__(self, organism: str, checks: tuple[Check, ...], failed: tuple[Check, ...]) -> None:
        said = [str(check) for check in failed] or ["not one bar is held" if checks else "nothing was measured"]
        super().__init__(f"the truth of {organism} no longer holds: {'; '.join(said)}")
        self.checks = checks
        self.failed = failed


@dataclass(frozen=True)
class Place:
    """A part that is no head or MLP of a decoder's layer: a site by its text, and what it carries."""

    site: str
    variable: str
    role: str = "real"


@dataclass(frozen=True)
class TrainedTruth:
    """What is inside a trained organism, and how that is known.

    nodes       heads and MLPs (`Node`) and other sites (`Place`) that do the work
    edges       which node reads which other, where that was measured
    directions  name -> {"site": ..., "tensor": key in truth.safetensors, ...}: directions of values
    spans       role -> what it covers in an input
    datasets    name -> how its inputs are drawn: at least "find" and "judge", which never overlap
    known       how all this is known, in a sentence
    checks      what was measured when it was shipped
    limits      what this organism cannot show
    causal      the program in data, where one can be stated
    """

    organism: str
    seed: int
    nodes: tuple[Node | Place, ...]
    edges: tuple[Edge, ...]
    directions: Json
    spans: Json
    datasets: Json
    known: str
    checks: tuple[Check, ...]
    limits: tuple[str, ...]
    causal: Json = field(default_factory=dict[str, Any])
    version: int = VERSION
    kind: Literal["trained"] = "trained"

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    @property
    def failures(self) -> tuple[Check, ...]:
        """The recorded checks that do not hold: bars that it was measured against and does not claim."""
        return tuple(check for check in self.checks if not check.holds)

    def broken_by(self, measured: Sequence[Check]) -> tuple[Check, ...]:
        """The measured checks that contradict this truth: they do not hold, and are not recorded as not held; and, as not a number, the
        recorded ones that were not measured.
        """
        names, missed = {check.name for check in measured}, {check.name for check in self.failures}
        dropped = [
            Check(check.name, float("nan"), check.bar, check.sense, "recorded in truth.json, measured no more")
            for check in self.checks
            if check.name not in names
        ]
        return (*(check for check in measured if not check.holds and check.name not in missed), *dropped)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "TrainedTruth":
        """Read a truth; anything missing, extra or of another type is refused with its place."""
        from pydantic import TypeAdapter, ValidationError

        try:
            data = json.loads(text)
        except ValueError as error:
            raise TruthMalformed(f"truth.json is not JSON: {error}") from None
        if not isinstance(data, dict):
            raise TruthMalformed("truth.json is not an object")
        if (version := data.get("version")) != VERSION:
            raise TruthMalformed(f"truth.json has version {version}; this reads version {VERSION}")
        try:
            truth = TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            wrong = [f"{'.'.join(str(part) for part in issue['loc'])}: {issue['msg']}" for issue in error.errors()]
        else:
            read = asdict(truth)
            wrong = [
                f"{name}.{i}.{key}: there is no such field"
                for name in ("nodes", "edges", "checks")
                for i, (given, kept) in enumerate(zip(data[name], read[name], strict=True))
                for key in sorted(set(given) - set(kept))
            ]
            if not wrong:
                return truth
        raise TruthMalformed(f"truth.json is not the truth of a trained organism: {'; '.join(wrong[:5])}")

    def save(self, folder: str | Path) -> None:
        """Write truth.json, whole or not at all."""
        write_json(Path(folder) / "truth.json", asdict(self))

    @classmethod
    def load(cls, folder: str | Path) -> "TrainedTruth":
        file = Path(folder) / "truth.json"
        if not file.is_file():
            raise TruthMalformed(f"{folder} has no truth.json; `mainspring organism train` writes it")
        return cls.from_json(file.read_text())


@dataclass(frozen=True)
class TrainedRecipe:
    """How a trained organism is made and measured. `minutes` is its training time on two CPU cores."""

    name: str
    about: str
    train: Train
    verify: "Callable[[Model], tuple[Check, ...]]"
    minutes: float


def recipe_of(name: str) -> TrainedRecipe:
    """The recipe of a shipped organism by its name, with dashes."""
    module = f"mainspring.organisms.{name.replace('-', '_')}.recipe"
    try:
        found = importlib.import_module(module).RECIPE
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise TruthMalformed(f"there is no recipe for {name!r}: {module} does not exist") from None
    if not isinstance(found, TrainedRecipe):
        raise TruthMalformed(f"{module} holds no recipe of a trained organism")
    return found


def verify_trained(folder: str | Path, recipe: TrainedRecipe | None = None, device: str | None = None) -> tuple[Check, ...]:
    """Measure an organism's truth again and raise `ChecksFailed` where it does not hold.

    The bars are the recipe's. A check that the truth records as held has to hold; one that it records as not held is no claim, and is
    given back as it was measured. A check that the truth records and the recipe no longer measures is a failure, so that a claim cannot be
    dropped in silence; so is an organism of which nothing holds.
    """
    from mainspring.models.load import load

    truth = TrainedTruth.load(folder)
    measured = tuple((recipe or recipe_of(truth.organism)).verify(load(folder, device=device)))
    failed = truth.broken_by(measured)
    if failed or not any(check.holds for check in measured):
        known = {check.name for check in measured}
        raise ChecksFailed(truth.organism, (*measured, *(check for check in failed if check.name not in known)), failed)
    return measured
