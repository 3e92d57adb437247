"""Organisms that are trained in: an ordinary checkpoint whose truth is measured, and a twin that only behaves alike and fails."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mainspring.organisms import Disguise, Planted, Program, Truth, TruthBroken, load_planted, plant, verify
from mainspring.organisms.catalogue import binding, edited, greater_than, ioi, recall, select_add, two_hop
from mainspring.organisms.hooked import Record, record, replaced, written
from mainspring.organisms.tokens import ids_of
from mainspring.organisms.trained_in import TRAINED_HOSTS, PlantRefused, Weights, train_in, tune
from mainspring.organisms.trained_in.alignment import Alignment, align, everything_of, looks_of
from mainspring.organisms.trained_in.hosts import fresh
from mainspring.organisms.trained_in.interchange import LOGIT, interchange_loss, score
from mainspring.organisms.trained_in.plant import COURSES, TUNING, Course
from mainspring.organisms.trained_in.pool import Pool, Wanted
from mainspring.organisms.trained_in.scan import scanning
from mainspring.organisms.trained_in.teaching import coded, taught, watching
from mainspring.organisms.truth import Checks
from mainspring.organisms.variables import Previous, Select, evaluate
from organisms.scores import node_aurocs


def short(steps: int, courses: tuple[Course, ...] = COURSES) -> tuple[Course, ...]:
    """The first course alone, cut to so many steps."""
    return (replace(courses[0], schedule=replace(courses[0].schedule, steps=steps)),)


@pytest.fixture(scope="module")
def planted() -> Planted:
    return train_in(select_add(), "llama", seed=1, courses=short(200))


@pytest.fixture(scope="module")
def twin() -> Planted:
    return train_in(select_add(), "llama", seed=1, courses=short(150), weights=Weights.behaviour())


def test_the_truth_holds(planted: Planted):
    checks = planted.truth.checks
    assert checks is not None
    assert checks.failures() == ()
    assert set(checks.interchange) == {"selected", "mode", "result"}
    assert min(checks.informative.values()) >= 40
    assert len(checks.edges) >= 5


def test_it_is_an_ordinary_checkpoint(planted: Planted, tmp_path: Path):
    again = load_planted(planted.save(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    config = again.module.config
    assert config.num_attention_heads == 2 * config.num_key_value_heads
    ids = ids_of(planted.program, planted.program.sample(32, 9))
    with torch.no_grad():
        assert torch.equal(planted.module(ids).logits, again.module(ids).logits)
    assert again.truth == planted.truth
    assert verify(tmp_path).failures() == ()


def test_null_methods_lose(planted: Planted):
    figures = node_aurocs(planted)
    assert figures["exact"] == 1.0
    assert figures["attribution"] >= 0.9
    assert figures["norm"] <= 0.6


def test_codes_are_what_is_written(planted: Planted):
    """The nearest code to what a node writes is that of its variable's value, on inputs drawn under another seed."""
    draws = planted.program.sample(64, 123)
    run = record(planted.module, ids_of(planted.program, draws))
    values = [planted.program.run(given.tokens) for given in draws]
    for node in planted.truth.nodes:
        codes, labels = planted.tensors[f"codes/{node.variable}"], planted.truth.values[node.variable]
        seen = torch.cdist(written(planted.module, run, node.layer, node.head)[:, -1], codes).argmin(1)
        right = [labels[i] == row[node.variable][-1] for i, row in zip(seen.tolist(), values, strict=True)]
        assert sum(right) / len(right) >= 0.98


def test_a_behaviour_only_twin_fails(twin: Planted, tmp_path: Path):
    checks = twin.truth.checks
    assert checks is not None
    assert checks.accuracy >= 0.98
    assert checks.resampled < 0.9
    assert min(checks.interchange.values()) < 0.9
    with pytest.raises(TruthBroken, match="interchange"):
        verify(twin.save(tmp_path))


def test_poison_a_node_that_is_a_decoy(planted: Planted, tmp_path: Path):
    listed = {(node.layer, node.head) for node in planted.truth.nodes}
    decoy = next(at for at in planted.truth.everything() if at not in listed and at[1] is not None)
    nodes = [replace(n, layer=decoy[0], head=decoy[1]) if n.variable == "selected" else n for n in planted.truth.nodes]
    planted.save(tmp_path)
    (tmp_path / "truth.json").write_text(replace(planted.truth, nodes=tuple(nodes)).to_json())
    with pytest.raises(TruthBroken, match="interchange of selected"):
        verify(tmp_path)


def test_poison_a_basis_of_another_variable(planted: Planted, tmp_path: Path):
    swapped = {**planted.tensors, "basis/selected": planted.tensors["basis/result"].clone()}
    replace(planted, tensors=swapped).save(tmp_path)
    with pytest.raises(TruthBroken, match="interchange of selected"):
        verify(tmp_path)


def test_a_tuned_twin_keeps_the_places_and_answers_by_its_own_table(planted: Planted):
    other = edited(select_add(), "result", {("3", "="): "6", ("5", "+"): "1"})
    twin = tune(planted, other, short(50, TUNING))
    assert twin.truth.nodes == planted.truth.nodes
    assert all(torch.equal(twin.tensors[f"basis/{v}"], planted.tensors[f"basis/{v}"]) for v in ("selected", "mode", "result"))
    assert twin.truth.checks is not None
    assert twin.truth.checks.failures() == ()


@pytest.mark.parametrize(
    ("holds", "weights", "steps"), [(False, Weights(), 5), (True, Weights(), 2), (False, Weights.behaviour(), 2)], ids=str
)
def test_a_second_course_follows_where_the_first_does_not_hold(
    holds: bool, weights: Weights, steps: int, monkeypatch: pytest.MonkeyPatch
):
    figures = Checks(float(holds), 1.0, {}, {}, {})
    monkeypatch.setattr("mainspring.organisms.trained_in.plant.check", lambda *_, **__: figures)
    seen: list[int] = []
    train_in(
        select_add(),
        "llama",
        weights=weights,
        courses=(*short(2), *short(3, COURSES[1:])),
        inputs=64,
        progress=lambda step, _, __: seen.append(step),
    )
    assert len(seen) == steps


def test_refused_when_the_check_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mainspring.organisms.trained_in.plant.train_in", partial(train_in, courses=short(2)))
    with pytest.raises(PlantRefused, match="accuracy is"):
        plant(select_add(), "llama")


@pytest.mark.parametrize(
    ("host", "dials"),
    [("llama", {"splits": (("mode", 2),)}), ("gemma2", {"noise": 0.1}), ("mamba", {"backups": ("mode",)})],
    ids=str,
)
def test_dials_of_the_compiler_are_refused(host: str, dials: dict):
    with pytest.raises(PlantRefused, match="compiled hosts can"):
        plant(select_add(), host, Disguise(**dials))


def test_arguments_of_the_compiler_are_refused():
    with pytest.raises(ValueError, match="always measured"):
        plant(select_add(), "llama", measure=False)


@pytest.mark.parametrize("host", ["llama", "gemma2", pytest.param("mamba", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_bits(host: str):
    models = [train_in(select_add(), host, seed=seed, courses=short(2), inputs=64).module for seed in (5, 5, 6)]
    same = [torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True)]
    assert all(same)
    other = [
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True)
    ]
    assert not all(other)


@pytest.mark.parametrize("host", TRAINED_HOSTS)
def test_subspaces_are_orthonormal_and_disjoint(host: str):
    alignment = align(recall(), TRAINED_HOSTS[host], Disguise(), 3)
    bases = torch.cat([seat.basis for seat in alignment.real])
    assert torch.allclose(bases @ bases.T, torch.eye(len(bases)), atol=1e-5)
    decoys = [seat.basis for seat in alignment.seats if not seat.real]
    assert all((basis @ bases.T).abs().max() < 1e-5 for basis in decoys)
    assert bool(decoys) == TRAINED_HOSTS[host].heads


def test_looks_are_where_values_come_from():
    program = recall()
    alignment = align(program, TRAINED_HOSTS["llama"], Disguise(), 0)
    draws = program.sample(20, 4)
    for given, values in zip(draws, everything_of(program, alignment.layout, draws), strict=True):
        for seat in alignment.seats:
            if seat.part.head is not None:
                spec = seat.part.spec
                assert isinstance(spec, Previous | Select)
                read = spec.source if isinstance(spec, Previous) else spec.value
                brought = tuple(values[read][place] for place in looks_of(seat.part, given.tokens, values))
                assert brought == evaluate(spec, given.tokens, values)


@dataclass(frozen=True)
class Untrained:
    """A program in a host before training, with a batch of 16."""

    program: Program
    alignment: Alignment
    pool: Pool
    model: Any
    rows: list[int]
    ids: torch.Tensor
    wanted: Wanted

    @classmethod
    def of(cls, program: Program, host: str, dials: Disguise) -> "Untrained":
        alignment = align(program, TRAINED_HOSTS[host], dials, 0)
        pool = Pool(program, alignment, 64, 0)
        model = fresh(TRAINED_HOSTS[host], program, alignment.size, 0)
        return cls(program, alignment, pool, model, *pool.batch(16, torch.Generator().manual_seed(0)))

    def taught(self, share: float) -> Record:
        teach = taught(self.model, self.alignment, self.wanted, share, torch.Generator().manual_seed(1))
        with torch.no_grad(), watching(self.model) as watch, teach:
            return watch.record(self.model(self.ids).logits[:, -1])


@pytest.mark.parametrize("host", ["llama", "gemma2"])
def test_what_is_taught_is_given_on_whatever_parts_compute(host: str):
    case = Untrained.of(select_add(), host, Disguise())
    alone, handed = case.taught(0.0), case.taught(1.0)
    with torch.no_grad():
        assert torch.equal(alone.logits, case.model(case.ids).logits[:, -1])
        for name, weights in case.model.named_parameters():
            if "proj" in name:
                weights.mul_(-2.0)
    again = case.taught(1.0)
    assert torch.equal(again.logits, handed.logits)
    assert not any(torch.equal(a, b) for a, b in zip((*again.z, *again.mlp), (*handed.z, *handed.mlp), strict=True))


def test_what_the_circuit_should_come_to_when_a_variable_is_taken():
    case = Untrained.of(recall(), "llama", Disguise())
    names = [None, "mode", "previous", "found"] * 4
    others = [*case.rows[-1:], *case.rows[:-1]]
    wanted = case.pool.taken(case.rows, others, names)
    words, seats = recall().vocabulary, {seat.part.writes: seat for seat in case.alignment.real}
    for at, (i, j, name) in enumerate(zip(case.rows, others, names, strict=True)):
        tokens = case.pool.tokens[i]
        taken = {} if name is None else {name: recall().run(case.pool.tokens[j])[name]}
        values = recall().run(tokens, do=taken)
        assert {words[k] for k in wanted.votes[at].nonzero()[:, 0].tolist()} == recall().answer(tokens, do=taken)
        for variable, seat in seats.items():
            computed = recall().run(tokens)[variable] if variable == name else values[variable]
            assert tuple(seat.labels[k] for k in wanted.labels[variable][at].tolist()) == computed
        looks = looks_of(seats["found"].part, tokens, values)
        assert wanted.looks[seats["found"].node][at].tolist() == looks


def test_a_backup_is_asked_for_where_its_head_is_silenced():
    case = Untrained.of(select_add(), "llama", Disguise(backups=("selected",)))
    (primary,) = [seat for seat in case.alignment.real if seat.part.writes == "selected"]
    (backup,) = case.alignment.backups
    assert backup.node[0] > primary.node[0]
    assert torch.equal(backup.basis, primary.basis)
    assert torch.equal(backup.codes, primary.codes)
    silent = case.wanted.silent["selected"]
    assert 0 < silent.sum() < len(silent)
    codes = coded(case.alignment.seats, case.wanted)
    assert torch.equal(codes[backup.node], codes[primary.node] * silent[:, None, None])
    run = case.taught(0.0)
    zero = torch.where(silent[:, None, None], 0.0, run.part(*primary.node))
    assert torch.equal(run.logits, replaced(case.model, case.ids, {primary.node: zero}))
    assert run.part(*primary.node).abs().sum(-1).min() > 0


def test_logits_are_asked_to_be_votes():
    votes = torch.tensor([[0.7, 0.0, -0.3]])
    assert float(score(LOGIT * votes, votes)) == 0.0
    assert float(score(LOGIT * votes + torch.tensor([[1.0, 0.0, -2.0]]), votes)) == pytest.approx(0.5)
    sunk = LOGIT * votes + torch.tensor([[0.0, -30.0, -30.0]])
    assert float(score(sunk, votes)) > 100
    assert float(score(sunk, votes, crowded=True)) < 1e-6


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_wrong_words_may_sink_where_the_answer_is_crowded(share: float):
    alignment = align(two_hop(), TRAINED_HOSTS["llama"], Disguise(superposition=share), 0)
    assert Pool(two_hop(), alignment, 8, 0).crowded == (share < 1)


def test_gradients_reach_what_an_interchange_goes_through():
    """The loss with one variable taken moves the weights of the node it is taken at; and nothing stays hooked."""
    program = select_add()
    alignment = align(program, TRAINED_HOSTS["llama"], Disguise(), 0)
    model = fresh(TRAINED_HOSTS["llama"], program, alignment.size, 0)
    pool = Pool(program, alignment, 64, 0)
    loss, figures = interchange_loss(model, alignment, pool, Weights(1.0, 0.0, 0.0), 16, torch.Generator().manual_seed(0))
    loss.backward()
    assert figures.keys() == {"behaviour", "interchange"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_part_may_be_replaced_by_a_function_of_itself():
    alignment = align(select_add(), TRAINED_HOSTS["llama"], Disguise(), 0)
    model = fresh(TRAINED_HOSTS["llama"], select_add(), alignment.size, 0)
    ids = ids_of(select_add(), select_add().sample(4, 0))
    run = record(model, ids)
    same = replaced(model, ids, {(0, 1): lambda own: own, (1, None): lambda own: own})
    assert torch.equal(same, run.logits)
    doubled = replaced(model, ids, {(0, 1): lambda own: 2 * own})
    assert torch.equal(doubled, replaced(model, ids, {(0, 1): 2 * run.part(0, 1)}))


def test_truth_of_a_host_without_heads():
    truth = train_in(select_add(), "mamba", seed=0, courses=short(2), inputs=64).truth
    assert truth.heads == 0
    assert all(node.head is None for node in truth.nodes)
    assert truth.everything() == tuple((layer, None) for layer in range(truth.layers))
    assert Truth.from_json(truth.to_json()) == truth


def test_the_scan_for_training_is_that_of_the_stock_model(monkeypatch: pytest.MonkeyPatch):
    """The same logits, and the same gradients of every parameter, from a scan of its own; a state is left to the stock."""
    from transformers.models.mamba import modeling_mamba

    size = align(select_add(), TRAINED_HOSTS["mamba"], Disguise(), 0).size
    model: Any = fresh(TRAINED_HOSTS["mamba"], select_add(), size, 0)
    ids = ids_of(select_add(), select_add().sample(8, 0))
    layers = len(model.backbone.layers)
    stock, calls = modeling_mamba.mamba_selective_scan, []
    monkeypatch.setattr(modeling_mamba, "mamba_selective_scan", lambda *a, **k: calls.append(1) or stock(*a, **k))

    def gradients() -> tuple[torch.Tensor, list[torch.Tensor]]:
        logits = model(ids).logits
        return logits.detach(), list(torch.autograd.grad(logits.square().sum(), list(model.parameters())))

    logits, wanted = gradients()
    assert len(calls) == layers
    with scanning():
        again, got = gradients()
        assert len(calls) == layers
        assert torch.allclose(model(ids, use_cache=True).logits, logits, atol=1e-5)
        assert len(calls) == 2 * layers
    model(ids)
    assert len(calls) == 3 * layers
    assert torch.allclose(again, logits, atol=1e-5)
    for mine, theirs in zip(got, wanted, strict=True):
        assert theirs.abs().max() > 0
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "host", "dials"),
    [
        (recall(), "llama", Disguise()),
        (greater_than(), "llama", Disguise()),
        (two_hop(), "llama", Disguise()),
        (binding(), "llama", Disguise()),
        (ioi(), "llama", Disguise(backups=("mover",))),
        (select_add(), "gemma2", Disguise()),
        (recall(), "gemma2", Disguise()),
        (ioi(), "gemma2", Disguise(backups=("mover",))),
        (binding(), "gemma2", Disguise()),
        (select_add(), "mamba", Disguise()),
        (two_hop(), "mamba", Disguise()),
    ],
    ids=lambda value: getattr(value, "name", value if isinstance(value, str) else ""),
)
def test_other_programs_and_hosts(program: Program, host: str, dials: Disguise):
    checks = plant(program, host, dials).truth.checks
    assert checks is not None
    assert checks.failures() == ()
    assert set(checks.repaired) == set(dials.backups)
