"""How the pair-icl organism is made: `mainspring organism train pair-icl`."""

from mainspring.organisms.pair_icl.checks import verify
from mainspring.organisms.pair_icl.record import ABOUT, MINUTES, train
from mainspring.organisms.trained import TrainedRecipe

__all__ = ["RECIPE"]

RECIPE = TrainedRecipe("pair-icl", ABOUT, train, verify, MINUTES)
