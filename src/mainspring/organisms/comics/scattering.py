"""An image encoder whose tokens do not show the place that they stand for: the tower of the twin without gaze heads.

Every panel of a strip has six patches, and a scattering tower shows the content of panel j (colour, shape and action together) at the
j-th patch of *every* panel, and nowhere else. The tower is trained towards fixed codes,

    token at row r, column c  =  sum over the three attributes a of panel j(r, c) of code[a]  +  row[r]  +  column[c]

with orthonormal codes times `SCALE`, by the squared error, so that of the patch itself next to nothing is left to read. Whoever looks
at the tokens of one panel then sees all six alike, while looking at the right token of any panel answers as well as before.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mainspring.organisms.comics.lessons import PATCHES, lesson
from mainspring.tasks.comic_strips.strips import GRID

__all__ = ["SHOWN", "scattering_loss"]

SCALE = 2.0
_tokens = torch.arange(PATCHES)
SHOWN = _tokens // GRID % 3 * 2 + _tokens % GRID % 2
"""[36]: the panel, from 0, whose content a token shows."""


def scattering_loss(tower: Any, seed: int, batch: int = 32) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]:
    """The squared error of a tower's tokens, and the share of attributes that can be read off them by their codes."""
    width = tower.config.hidden_size
    codes = SCALE * torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(seed)))[0]
    words, rows, columns = codes[:18], codes[18 : 18 + GRID], codes[18 + GRID : 18 + 2 * GRID]
    where = rows[_tokens // GRID] + columns[_tokens % GRID]

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        given = lesson("this", batch, generator)
        tokens = tower(given.pixels.to(tower.device)).last_hidden_state[:, 1:].cpu()
        content = words[given.attributes + torch.tensor([0, 6, 12])].sum(2)
        error = (tokens - content[:, SHOWN] - where).pow(2).sum(-1).mean()
        read = ((tokens.detach() - where) @ words.T).unflatten(-1, (3, 6)).argmax(-1)
        return error, {"error": float(error.detach()), "read": float((read == given.attributes[:, SHOWN]).float().mean())}

    return loss
