"""Tasks: inputs with counterfactuals, named token spans, answers and a metric.

Made of our own word lists for any tokenizer (`ioi`, `greater_than`, `induction`, ...), or read from files in published formats
(`read_mib`, `read_ravel`, `read_counterfact`, `read_ioi`).
"""

from mainspring.tasks.adapters import read_counterfact, read_ioi, read_mib, read_ravel
from mainspring.tasks.agreement import agreement
from mainspring.tasks.algebra_task import group_facts
from mainspring.tasks.belief_stories import beliefs
from mainspring.tasks.box_stories import told_boxes
from mainspring.tasks.comic_strips import comics
from mainspring.tasks.copying_task import copying
from mainspring.tasks.errors import BrokenData, TaskError, TooFewWords
from mainspring.tasks.item import Item
from mainspring.tasks.names import ioi, pronouns
from mainspring.tasks.numbers import addition, greater_than
from mainspring.tasks.pair_icl_task import filtering, functions
from mainspring.tasks.regions import RegionItem, RegionTask, read_coco
from mainspring.tasks.retrieval import boxes, capitals, two_hop
from mainspring.tasks.sequences import induction, successor
from mainspring.tasks.shots import in_context
from mainspring.tasks.task import SPLITS, Task

__all__ = [
    "SPLITS",
    "BrokenData",
    "Item",
    "RegionItem",
    "RegionTask",
    "Task",
    "TaskError",
    "TooFewWords",
    "addition",
    "agreement",
]
__all__ += [
    "beliefs",
    "boxes",
    "capitals",
    "comics",
    "copying",
    "filtering",
    "functions",
    "greater_than",
    "group_facts",
    "in_context",
    "induction",
    "ioi",
    "pronouns",
    "read_coco",
    "read_counterfact",
]
__all__ += ["read_ioi", "read_mib", "read_ravel", "successor", "told_boxes", "two_hop"]
