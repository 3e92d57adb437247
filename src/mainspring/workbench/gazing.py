"""A text that is written while somebody points: the gaze of chosen heads, moved between two words, and where they looked for each word.

Every word says how often the aim had been moved when it was chosen. The looks are taken by edits of the pattern that change nothing: they
see the row that predicts the next token, after the gaze was moved.
"""

import base64
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock
from time import monotonic
from typing import Any

import torch
from torch import Tensor

from mainspring.edits import Edits
from mainspring.engine.generate import Step
from mainspring.find.gaze_regions import VIEWS, positions_of
from mainspring.models.image_tokens import ImageTokens
from mainspring.sites import at
from mainspring.steer.gaze_edit import gaze
from mainspring.workbench.events import Send
from mainspring.workbench.images import Shown
from mainspring.workbench.prompting import image_tokens
from mainspring.workbench.shelf import Held

__all__ = ["Aim", "Gazing", "Pace", "Taps"]

Heads = Sequence[tuple[int, int]]


class Taps:
    """Edits that keep the last row of the attention of some heads, and change nothing."""

    def __init__(self, heads: Heads) -> None:
        self._rows: dict[int, Tensor] = {}
        layers: dict[int, list[int]] = {}
        for layer, head in heads:
            layers.setdefault(layer, []).append(head)
        self.edits = Edits(
            at.layers[layer].attn.pattern(head=sorted(which)).apply(self._tap(layer)) for layer, which in layers.items()
        )

    def _tap(self, layer: int) -> Any:
        def keep(pattern: Tensor) -> Tensor:
            self._rows[layer] = pattern[0, :, -1].detach().float().cpu()
            return pattern

        return keep

    def mean(self) -> Tensor:
        """[key] the mean over the heads."""
        return torch.cat(list(self._rows.values())).mean(0)


class Aim:
    """Where the heads of a text are to look. It may be told from any thread, also before the text has begun."""

    def __init__(self, target: Any = None, name: str = "") -> None:
        self.name = name or secrets.token_hex(8)
        self.moved = Event()
        """Set when it was told to look elsewhere."""
        self._now: tuple[int, Any] = (0, target)
        self._lock = Lock()

    @property
    def now(self) -> tuple[int, Any]:
        """How often it was told, and the target."""
        return self._now

    def look(self, target: Any, turn: int | None = None) -> None:
        """Look elsewhere from the next token on; None lets go. `turn` counts what was told: one that was overtaken is dropped."""
        with self._lock:
            turn = self._now[0] + 1 if turn is None else turn
            if turn > self._now[0]:
                self._now = (turn, target)
                self.moved.set()


@dataclass(eq=False)
class Gazing:
    """One text in the writing, and the aim that is followed."""

    held: Held
    shown: Shown
    prompt: str
    moved: Heads
    watched: Heads
    aim: Aim = field(default_factory=Aim)
    words: int = 3
    pace: float = 0.0
    """Tokens in a second; 0 is as fast as it goes."""
    _turn: int = 0

    def run(self, send: Send) -> None:
        """Write, and tell `start`, `word` for each token and `end`."""
        with self.held.lock:
            tokens = image_tokens(self.held, self.prompt, self.shown)
            taps = Taps(self.watched)
            self._turn, target = self.aim.now
            stream = self.held.model.generate(
                self.prompt,
                images=self.shown.image,
                edits=Edits([*self._pointed(target, tokens, "all"), *taps.edits]),
                controller=lambda step: self._moved(taps, tokens),
                max_new_tokens=self.words,
                stream=True,
            )
        cells = [token for token in tokens if token.kind in VIEWS]
        spots = [positions_of(region, tokens) for region in self.shown.regions]
        pace = Pace(self.pace, self.aim.moved)
        try:
            send("start", {"session": self.aim.name, "cells": [[round(n, 4) for n in cell.box] for cell in cells]})
            while True:
                with self.held.lock:
                    step = next(stream, None)
                if step is None:
                    break
                send("word", _told(step, taps.mean(), [cell.position for cell in cells], spots) | {"turn": self._turn})
                pace.wait()
        finally:
            stream.close()
        send("end", {})

    def _pointed(self, target: Any, tokens: ImageTokens, rows: str) -> Edits:
        return Edits() if target is None or not self.moved else gaze(self.moved, target, tokens, rows=rows)

    def _moved(self, taps: Taps, tokens: ImageTokens) -> Edits | None:
        """The edits for what follows, where the aim has moved. Rows behind the text keep what the cache holds of them."""
        turn, target = self.aim.now
        if turn == self._turn:
            return None
        self._turn = turn
        return Edits([*self._pointed(target, tokens, "decode"), *taps.edits])


class Pace:
    """Pauses between words that a reader can follow; after the aim has moved, the next words come at once.

    Those few words are taken from the pauses that follow, so that a text whose aim moves is written no faster on the whole.
    """

    AT_ONCE = 4
    """Words that come without a pause: the end of a clause and the beginning of the next hold as many that no aim can change."""

    def __init__(self, rate: float, moved: Event) -> None:
        self.rate, self.moved = rate, moved
        self._at_once, self._due = self.AT_ONCE, monotonic()

    def wait(self) -> None:
        """Until the next word is due, or the aim moves."""
        if not self.rate:
            return
        self._due += 1 / self.rate
        ahead = min(self._due - monotonic(), self.AT_ONCE / self.rate)
        self._at_once -= 1
        if self.moved.is_set() or (self._at_once <= 0 and ahead > 0 and self.moved.wait(ahead)):
            self.moved.clear()
            self._at_once = self.AT_ONCE


def _told(step: Step, row: Tensor, cells: Sequence[int], spots: Iterable[Sequence[int]]) -> dict[str, Any]:
    """A word, with the heads' mean attention to each cell as bytes (255 is the largest), and to each region."""
    mass = row[list(cells)]
    top = float(mass.max()) or 1.0
    data = base64.b64encode((mass / top * 255).round().byte().numpy().tobytes()).decode()
    regions = [round(float(row[list(spot)].sum()), 4) for spot in spots]
    text = step.text[0] if step.text is not None else f"{int(step.tokens[0])} "
    return {"index": step.index, "text": text, "mass": data, "top": round(top, 4), "regions": regions}
