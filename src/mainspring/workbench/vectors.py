"""Files of directions that were sent, by the digest of their bytes; the last few are kept."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from torch import Tensor

from mainspring.workbench.faults import NotThere
from mainspring.workbench.figures.directions import read_tensors, saved_directions

__all__ = ["Sent", "Vectors"]

KEPT = 8


@dataclass(frozen=True, eq=False)
class Sent:
    """The tensors of a file, and what the file was called where it came from."""

    called: str
    tensors: dict[str, Tensor]


class Vectors:
    """Files by name."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, Sent] = OrderedDict()
        self._lock = Lock()

    def add(self, body: bytes, called: str) -> str:
        """Keep a file that was sent and holds at least one direction; returns its name."""
        sent = Sent(called, read_tensors(body))
        saved_directions(sent.tensors)
        name = f"sent:{hashlib.sha256(body).hexdigest()[:16]}"
        with self._lock:
            self._sent[name] = sent
            while len(self._sent) > KEPT:
                self._sent.popitem(last=False)
        return name

    def get(self, name: str) -> Sent:
        with self._lock:
            if name not in self._sent:
                raise NotThere(f"there is no file {name!r}")
            return self._sent[name]
