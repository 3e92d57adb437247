"""The gaze study on its organisms: every claim but two whose bars are not reached, and a poison twin with heads upside down."""

from dataclasses import replace

import pytest

from mainspring.studies import Setting, run_study
from mainspring.studies import gaze_heads as gaze_study

NOT_HELD = {
    "the best head looks at next to nothing else (score)",
    "unsteered, the first four climb from panel to panel as it is described (staircase)",
}


@pytest.mark.slow
def test_every_claim_but_two_holds():
    report = run_study("gaze-heads", Setting())
    assert {claim.name for claim in report.claims if not claim.holds} == NOT_HELD


@pytest.mark.slow
def test_heads_that_look_away_are_rejected(monkeypatch):
    right = gaze_study.gaze_heads
    monkeypatch.setattr(gaze_study, "gaze_heads", lambda *a, **k: (s := right(*a, **k)) and replace(s, values=-s.values))
    failed = {claim.name for claim in run_study("gaze-heads", Setting(quick=True)).claims if not claim.holds}
    assert any("decide what is described" in name for name in failed)
