"""Every error mainspring raises on purpose. A message says what was asked, what there is, and what to do.

MainspringError
├── SiteError            a place that is named wrongly
│   ├── UnknownSite          no such name in the vocabulary, or on this model
│   ├── SiteRefused          a known place that this architecture does not offer; carries the reason
│   ├── LayerOutOfRange
│   └── SelectorError        a selector that the site's axes do not have, or an index beyond the axis
│       └── PositionError        a token position or span that the text does not have
├── EditError            an edit that cannot be applied
│   ├── ShapeMismatch
│   ├── DtypeMismatch
│   ├── NotFinite
│   ├── EditNeverFired
│   └── NotPortable          `apply(fn)` holds Python and cannot be written as data
├── InputError           inputs that cannot be run
│   ├── EmptyBatch
│   ├── MissingTokenizer
│   └── UnknownWord          a tokenizer of whole words has none for a word of a text
├── NotRecorded          asked of a trace, but the run did not keep it
├── LoadError            a checkpoint that cannot be opened
│   ├── MissingWeights
│   └── BrokenCheckpoint
├── PortableError        a document of a request that cannot be trusted or read
│   ├── Malformed            not the form that is promised: a missing, doubled, extra or wrongly typed part
│   ├── WrongVersion
│   ├── UnknownOperation     a graph uses an operation that may not travel
│   ├── TooLarge             beyond a limit on nodes, constants, memory or work
│   └── UnsafeShape          a graph whose shapes or dtypes do not hold at its site
├── UnmappedModel        no map fits this architecture
├── ViewError            a view spec whose parts do not fit together
├── Diverged             a training whose loss is no longer a number
├── CheckpointRefused    a checkpoint of another training
├── TruthMalformed       a truth.json that is not of the promised form
└── MissingExtra         an optional dependency is not installed
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "BrokenCheckpoint",
    "CheckpointRefused",
    "Diverged",
    "DtypeMismatch",
    "EditError",
    "EditNeverFired",
    "EmptyBatch",
    "InputError",
    "LayerOutOfRange",
    "LoadError",
    "MainspringError",
    "Malformed",
    "MissingExtra",
    "MissingTokenizer",
    "MissingWeights",
    "NotFinite",
    "NotPortable",
    "NotRecorded",
    "PortableError",
    "PositionError",
    "SelectorError",
    "ShapeMismatch",
    "SiteError",
    "SiteRefused",
    "TooLarge",
    "TruthMalformed",
    "UnknownOperation",
    "UnknownSite",
    "UnknownWord",
    "UnmappedModel",
    "UnsafeShape",
    "ViewError",
    "WrongVersion",
    "nearest",
]


class MainspringError(Exception):
    """Base of every error raised on purpose."""


class SiteError(MainspringError, ValueError):
    """A place that is named wrongly."""


class UnknownSite(SiteError):
    """No such site in the vocabulary, or no such module on this model."""


class SiteRefused(SiteError):
    """A known site that this architecture does not offer; `reason` says why, in the words of `model.can`."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class LayerOutOfRange(SiteError, IndexError):
    """A layer index beyond the model's layers."""


class SelectorError(SiteError):
    """A selector that the site's axes do not have, or an index beyond its axis."""


class PositionError(SelectorError, IndexError):
    """A token position, step or span that the text does not have."""


class EditError(MainspringError, ValueError):
    """An edit that cannot be applied."""


class ShapeMismatch(EditError):
    """A value whose shape cannot be laid over the site."""


class DtypeMismatch(EditError):
    """A value whose dtype would lose information at the site."""


class NotFinite(EditError):
    """A value with NaN or infinity."""


class EditNeverFired(EditError):
    """An edit whose place was never reached by the run."""


class NotPortable(EditError):
    """An edit that holds a Python function and so cannot be written as data."""


class InputError(MainspringError, ValueError):
    """Inputs that cannot be run."""


class EmptyBatch(InputError):
    """No rows, or a row without tokens."""


class MissingTokenizer(InputError):
    """Text was given to a model without a tokenizer."""


class UnknownWord(InputError):
    """A tokenizer of whole words has no token for a word of a text, and none for what it does not know."""


class NotRecorded(MainspringError, KeyError):
    """A trace was asked for something that its run did not keep."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class LoadError(MainspringError, OSError):
    """A checkpoint that cannot be opened."""


class MissingWeights(LoadError):
    """A folder without weights, or weights that lack tensors of the model."""


class BrokenCheckpoint(LoadError):
    """A weights or configuration file that is damaged."""


class PortableError(MainspringError, ValueError):
    """A document of a request that cannot be trusted or read."""


class Malformed(PortableError):
    """Not the form that is promised: a missing, doubled, extra or wrongly typed part."""


class WrongVersion(PortableError):
    """A document of another kind, or of a version that this release does not read."""


class UnknownOperation(PortableError):
    """A graph uses an operation that is not on the allow-list."""


class TooLarge(PortableError):
    """Beyond a limit on the document, its nodes, its constants, or the memory and work that it asks for."""


class UnsafeShape(PortableError):
    """A graph whose shapes, dtypes or indices do not hold at its site."""


class UnmappedModel(MainspringError, TypeError):
    """No map fits this architecture; `model.run` still offers `module[...]` sites."""


class ViewError(MainspringError, ValueError):
    """A view spec whose parts do not fit together, or a document that holds none."""


class Diverged(MainspringError, ArithmeticError):
    """A training whose loss or gradient is no longer a number; `step` is the step that gave it."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(
            f"the {what} of step {step} is not finite; no weight was changed by that step. Lower the learning rate, clip harder, or "
            "look at the batch of that step"
        )
        self.step = step


class CheckpointRefused(MainspringError, ValueError):
    """A checkpoint that is not of this training, or cannot be read."""


class TruthMalformed(MainspringError, ValueError):
    """A truth.json that is not of the form that is promised."""


class MissingExtra(MainspringError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as ``; did you mean 'attn.z'?`` - empty when nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
