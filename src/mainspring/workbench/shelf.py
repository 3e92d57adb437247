"""The models that are open: each is loaded once, and one lock per model lets its requests take turns, step by step.

A generation takes the lock for each token and not for its whole length, so that a page that streams does not keep another waiting.

What is imported and open makes up four hundred thousand objects. A full collection of Python's goes through all of them and stops every
thread meanwhile, for 0.2 to 0.3 seconds, and on a server that has just started it came with one of the first hovers. So what there is
when a model is open is left out of later collections (`gc.freeze`), until a model makes room.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from mainspring.errors import InputError, UnknownWord
from mainspring.models.load import load
from mainspring.models.model import Model
from mainspring.models.words import is_unknown_word, known_words
from mainspring.workbench.turns import Turns

__all__ = ["Held", "Shelf"]


@dataclass(eq=False)
class Held:
    """An open model, its lock, and what was found out about it."""

    name: str
    model: Model
    lock: Turns = field(default_factory=Turns)
    known: dict[Any, Any] = field(default_factory=dict[Any, Any])

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Texts are read inside: one with a word that the model does not have is refused in clear words."""
        try:
            yield
        except Exception as error:
            if not is_unknown_word(error):
                raise
            words = known_words(self.model.tokenizer)
            raise UnknownWord(f"a word of this text is none of those that {self.name} knows: {words}") from None

    def summary(self) -> dict[str, Any]:
        """What a list of models says of it."""
        model = self.model
        return {
            "name": self.name,
            "class": type(model.module).__name__,
            "family": model.family,
            "layers": model.n_layers if model.map is not None else 0,
            "parameters": sum(p.numel() for p in model.module.parameters()),
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "text": model.tokenizer is not None,
            "images": bool(model.map is not None and model.map.images and model.processor is not None),
            "generates": bool(getattr(model.module, "can_generate", lambda: False)()),
        }


class Shelf:
    """Models by name, at most `size` at a time; the one that was used longest ago makes room."""

    def __init__(self, size: int = 6) -> None:
        self.size = size
        self._held: dict[str, Held] = {}
        self._lock = Lock()
        # one at a time: transformers imports its parts and sets defaults of torch while it loads, which two threads must not do at once
        self._loading = Lock()

    def get(self, name: str) -> Held:
        """An open model; it is loaded where it is not."""
        name = name.strip()
        if not name:
            raise InputError("no model is named")
        if found := self._taken(name):
            return found
        with self._loading:
            if found := self._taken(name):  # another page has loaded it meanwhile
                return found
            held = Held(name, load(name))
            with self._lock:
                self._held[name] = held
                crowded = len(self._held) > self.size
                while len(self._held) > self.size:
                    self._held.pop(next(iter(self._held)))
            if crowded:  # what loads a model may leave a ring around it, which only a collection frees
                gc.unfreeze()
                gc.collect()
            gc.freeze()
            return held

    def _taken(self, name: str) -> Held | None:
        """A model that is open; it is now the one that was used last."""
        with self._lock:
            if name in self._held:
                self._held[name] = self._held.pop(name)
            return self._held.get(name)

    @contextmanager
    def use(self, name: str) -> Iterator[Held]:
        """A model that no other request uses meanwhile."""
        held = self.get(name)
        with held.lock, held.reading():
            yield held

    def __iter__(self) -> Iterator[Held]:
        with self._lock:
            return iter(list(self._held.values()))
