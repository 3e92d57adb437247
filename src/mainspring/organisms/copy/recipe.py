"""How the copy organism is made: `mainspring organism train copy`."""

from mainspring.organisms.copy.checks import verify
from mainspring.organisms.copy.record import ABOUT, MINUTES, train
from mainspring.organisms.trained import TrainedRecipe

__all__ = ["RECIPE"]

RECIPE = TrainedRecipe("copy", ABOUT, train, verify, MINUTES)
