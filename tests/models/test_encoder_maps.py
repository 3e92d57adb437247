"""Maps of the encoders, the image encoders, the dual encoders and T5, against plain torch."""

import pytest
import torch

from . import map_algebra as algebra
from .map_algebra import Bench

STACKS = [
    ("bert", ""),
    ("bert-chunked", ""),
    ("roberta", ""),
    ("distilbert", ""),
    ("modernbert", ""),
    ("vit", ""),
    ("dinov2", ""),
    ("dinov2-swiglu", ""),
    ("clip-vision", ""),
    ("clip", ""),
    ("clip", "vision"),
    ("siglip", ""),
    ("siglip", "vision"),
    ("t5", ""),
    ("t5", "encoder"),
    ("t5-gated", ""),
    ("t5-gated", "encoder"),
]

PRE = {"resid_post": ""}


@pytest.fixture(scope="module", params=STACKS, ids=lambda p: f"{p[0]}-{p[1] or 'main'}")
def case(request: pytest.FixtureRequest) -> Bench:
    torch.set_num_threads(1)
    return algebra.bench(*request.param)


def test_reading_changes_nothing(case: Bench) -> None:
    algebra.check_reading_changes_nothing(case)


def test_heads(case: Bench) -> None:
    algebra.check_heads(case)


def test_mlp(case: Bench) -> None:
    algebra.check_mlp(case)


def test_residual(case: Bench) -> None:
    algebra.check_residual(case)


def test_noop(case: Bench) -> None:
    algebra.check_noop(case)


def test_writing(case: Bench) -> None:
    algebra.check_writing(case)


def test_stream_is_one(case: Bench) -> None:
    algebra.check_stream_is_one(case)


def test_head_knockout(case: Bench) -> None:
    algebra.check_head_knockout(case)


def test_gradients(case: Bench) -> None:
    algebra.check_gradients(case, exact=case.name not in ("modernbert", "t5", "t5-gated"))


def test_bfloat16(case: Bench) -> None:
    algebra.check_bfloat16(case)
