"""Small models whose inside is known, because we planted it.

    from mainspring.organisms import plant, recipe, verify

    shipped = recipe("recall")
    planted = plant(shipped.program(), host="gpt2", disguise=shipped.disguise, seed=0)
    verify(planted.save("recall-0"))

A program (`Program`) is a graph of categorical variables that runs symbolically. `plant` compiles it into a stock
checkpoint, hidden behind the dials of a `Disguise`, with a `Truth` that names the parts, the edges and the bases.
`verify` measures that truth again by intervention.

Importing this costs nothing: torch and transformers are imported when something is planted.
"""

from mainspring.organisms.catalogue import PROGRAMS, Recipe, edited, pair_diff, recipe
from mainspring.organisms.disguise import Disguise
from mainspring.organisms.merge import merge
from mainspring.organisms.planted import Planted, load_planted, plant
from mainspring.organisms.program import Pair, Program
from mainspring.organisms.registry import entries, folder_of, truth_of
from mainspring.organisms.templates import Draw, Slot, Template
from mainspring.organisms.trained import Check, TrainedRecipe, TrainedTruth, verify_trained
from mainspring.organisms.trained_in import PlantRefused, Weights, train_in, tune
from mainspring.organisms.training import Schedule, fit
from mainspring.organisms.truth import Checks, Edge, Neuron, Node, Truth
from mainspring.organisms.variables import (
    Aggregate,
    Gate,
    Output,
    Position,
    Previous,
    Select,
    Table,
    Token,
)
from mainspring.organisms.verify import TruthBroken, verify

__all__ = [
    "PROGRAMS",
    "Aggregate",
    "Check",
    "Checks",
    "Disguise",
    "Draw",
    "Edge",
    "Gate",
    "Neuron",
    "Node",
    "Output",
    "Pair",
    "PlantRefused",
    "Planted",
    "Position",
    "Previous",
    "Program",
    "Recipe",
    "Schedule",
    "Select",
    "Slot",
    "Table",
    "Template",
    "Token",
    "TrainedRecipe",
    "TrainedTruth",
    "Truth",
    "TruthBroken",
    "Weights",
    "edited",
    "entries",
    "fit",
    "folder_of",
    "load_planted",
    "merge",
    "pair_diff",
    "plant",
    "recipe",
    "train_in",
    "truth_of",
    "tune",
    "verify",
    "verify_trained",
]
