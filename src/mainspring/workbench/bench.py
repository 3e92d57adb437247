"""What all pages of one server share: open models, images, texts in the writing, and threads for what is streamed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, StringConstraints

from mainspring.errors import InputError
from mainspring.workbench.events import Send, stream
from mainspring.workbench.faults import NotThere
from mainspring.workbench.gazing import Aim
from mainspring.workbench.images import Images
from mainspring.workbench.shelf import Shelf
from mainspring.workbench.vectors import Vectors

__all__ = ["Asked", "Bench", "Name", "Text"]

Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Text: TypeAlias = Annotated[str, StringConstraints(max_length=20_000)]


class Asked(BaseModel):
    """A request: no field that is not known."""

    model_config = ConfigDict(extra="forbid")


@dataclass(eq=False)
class Bench:
    """The state of one server."""

    names: tuple[str, ...]
    """The models that were named when the server was started."""
    closing: Event = field(default_factory=Event)
    """Set when the server is about to stop."""
    shelf: Shelf = field(default_factory=Shelf)
    images: Images = field(default_factory=Images)
    vectors: Vectors = field(default_factory=Vectors)
    aims: dict[str, Aim] = field(default_factory=dict[str, Aim])
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "workbench"))

    def stream(self, work: Callable[[Send], None]):
        """Run work in a thread and tell what it sends."""
        return stream(self.pool, work, self.closing)

    @contextmanager
    def following(self, aim: Aim) -> Iterator[None]:
        """The aim can be moved while its text is written."""
        if aim.name in self.aims:
            raise InputError(f"a text with the name {aim.name!r} is being written")
        self.aims[aim.name] = aim
        try:
            yield
        finally:
            del self.aims[aim.name]

    def aim(self, session: str) -> Aim:
        if session not in self.aims:
            raise NotThere("this text is finished, so it cannot be pointed any more")
        return self.aims[session]
