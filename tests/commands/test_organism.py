"""`mainspring organism`: what it prints, what it writes, and when it exits with 1."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from transformers.utils import logging
from typer.testing import CliRunner

from mainspring import cli
from mainspring.commands import organism
from mainspring.commands.progress import training_bar
from mainspring.errors import LoadError
from mainspring.organisms import PROGRAMS, Truth, plant, recipe, registry, trained
from mainspring.organisms.trained import Check, TrainedRecipe, TrainedTruth
from mainspring.organisms.training import Schedule, fit


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    """A cache of its own, and transformers as talkative afterwards as before."""
    monkeypatch.setenv("MAINSPRING_CACHE", str(tmp_path / "cache"))
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)
    logging.enable_progress_bar()


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["organism", *map(str, arguments)], env={"COLUMNS": "240"})


def call(*arguments):
    found = invoke(*arguments)
    assert found.exception is None, found.exception
    return found.output


def test_list_names_every_organism():
    text = call("list")
    for found in registry.entries():
        (line,) = [line for line in text.splitlines() if f"│ {found.name} " in line]
        assert found.kind in line
        assert found.about[:20] in line
    (line,) = [line for line in text.splitlines() if "│ recall " in line]
    assert "2.8 MB" in line
    assert "accuracy 1.000, interchange 1.000, 8 edges" in line


@pytest.mark.parametrize(
    "command", [["list"], ["--help"], ["show", "--help"], ["train", "--help"], ["verify", "--help"]], ids=str
)
def test_listing_and_help_import_nothing_heavy(command):
    code = (
        f"import sys; sys.argv = ['mainspring', 'organism', *{command}]\n"
        "from mainspring.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code in (0, None)\n"
        "print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = found.stdout.rpartition("LOADED")[2].split()
    assert not {"torch", "transformers", "numpy", "safetensors"} & set(loaded)


def test_show_prints_the_card_and_the_truth():
    text = call("show", "recall")
    truth = registry.truth_of("recall")
    for node in truth.nodes:
        assert [line for line in text.splitlines() if node.id in line and node.variable in line]
    assert "What it cannot show" in text
    assert "Edges" in text
    assert str(registry.entry("recall").folder) in text.replace("\n", "")


def test_verify_prints_the_figures_and_exits_with_one_when_the_truth_fails(tmp_path):
    text = call("verify", "select-add", "--count", 40)
    assert "the truth holds" in text
    assert [line for line in text.splitlines() if "accuracy" in line and "1.000" in line and "yes" in line]
    folder = registry.plant_into(tmp_path / "bad", "select-add", "gpt2", 5)
    truth = Truth.from_json((folder / "truth.json").read_text())
    (folder / "truth.json").write_text(PROGRAMS["select-add"].plant("gpt2", 6, measure=False).truth.to_json())
    found = invoke("verify", folder, "--count", 40)
    assert found.exit_code == 1
    assert "the truth does not hold" in found.output
    assert " no " in found.output
    (folder / "truth.json").write_text(truth.to_json())
    assert invoke("verify", folder, "--count", 40).exit_code == 0


def test_plant_writes_an_organism_that_nobody_has_seen(tmp_path):
    texts = [call("plant", "select-add", "--out", tmp_path / name) for name in ("a", "b")]
    seeds = [Truth.from_json((tmp_path / name / "truth.json").read_text()).seed for name in ("a", "b")]
    assert seeds[0] != seeds[1]
    assert all(f"with seed {seed}" in text for seed, text in zip(seeds, texts, strict=True))
    call("plant", "greater-than", "--host", "gpt_neox", "--seed", 3, "--out", tmp_path / "c")
    truth = Truth.from_json((tmp_path / "c/truth.json").read_text())
    assert (truth.host, truth.seed) == ("gpt_neox", 3)
    assert {"card.md", "config.json", "model.safetensors", "tokenizer.json"} <= {f.name for f in (tmp_path / "c").iterdir()}
    assert invoke("plant", "recall", "--host", "rwkv", "--out", tmp_path / "d").exit_code == 2
    assert isinstance(invoke("plant", "unicorn", "--out", tmp_path / "d").exception, LoadError)
    assert not (tmp_path / "d").exists()


def test_train_of_a_planted_organism_compiles_it(tmp_path):
    assert "compiled, not trained" in call("train", "select-add", "--out", tmp_path / "x", "--seed", 2)
    assert Truth.from_json((tmp_path / "x/truth.json").read_text()).seed == 2
    assert str(registry.entry("select-add").folder) in call("train", "select-add").replace("\n", "")


def train_toy(folder, seed, device, progress):
    """A recall circuit whose embedding was disturbed, taught back: a training in miniature, with everything a recipe does."""
    shipped = recipe("select-add")
    planted = plant(shipped.program(), disguise=shipped.disguise, measure=False)
    module = planted.module
    ids = planted.tokenizer(["= 4 1 7 2 p2"], return_tensors="pt").input_ids

    def loss(step, generator):
        return torch.nn.functional.cross_entropy(module(ids).logits[:, -1], torch.tensor([ids[0, 4]]))

    fit(module, loss, Schedule(8, 1e-5, warmup=2, save_every=2), seed=seed, folder=folder, device=device, progress=progress)
    planted.save(folder)
    checks = measure_toy(None)
    truth = TrainedTruth("toy", seed, (), (), {}, {}, {}, "measured", checks, ("it is a toy",))
    truth.save(folder)


def measure_toy(model):
    if model is None:
        return (Check("answer", 1.0, 0.9, ">="),)
    right = model.run("= 4 1 7 2 p2").logits[0, -1].argmax().item() == model.tokenizer.convert_tokens_to_ids("7")
    return (Check("answer", float(right), 0.9, ">="),)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "package/toy").mkdir(parents=True)
    (tmp_path / "package/toy/__init__.py").write_text('"""A toy with a mechanism."""\n')
    (tmp_path / "package/toy/recipe.py").write_text("")
    monkeypatch.setattr(registry, "PACKAGE", tmp_path / "package")
    made = TrainedRecipe("toy", "a toy", train_toy, measure_toy, 0.1)
    monkeypatch.setattr(trained, "recipe_of", lambda name: made)


def test_a_trained_organism_from_nothing_to_verified(toy, tmp_path, capfd):
    (line,) = [line for line in call("list").splitlines() if "│ toy " in line]
    assert "not trained yet: run `mainspring organism train toy`" in line
    text = call("train", "toy", "--seed", 0)
    assert "wrote" in text
    folder = registry.folder_of("toy")
    assert json.loads((folder / "curve.json").read_text())[-1]["step"] == 8
    (line,) = [line for line in call("list").splitlines() if "│ toy " in line]
    assert "1 of 1 checks hold, answer 1.000" in line
    assert "Measured when it was made" in call("show", "toy")
    assert "the truth holds" in call("verify", "toy")
    assert invoke("verify", "toy", "--count", 50).exit_code == 2


def test_an_interrupted_training_goes_on_where_it_was(toy, monkeypatch):
    steps = []

    class Interrupted:
        def __enter__(self):
            def progress(step, total, figures):
                steps.append(step)
                if steps == [1, 2, 3, 4, 5]:
                    raise KeyboardInterrupt

            return progress

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("mainspring.commands.progress.training_bar", lambda name: Interrupted())
    assert invoke("train", "toy").exit_code != 0
    call("train", "toy")
    assert steps == [1, 2, 3, 4, 5, 5, 6, 7, 8]


def test_a_trained_truth_that_fails_exits_with_one(toy, monkeypatch):
    call("train", "toy")
    broken = TrainedRecipe("toy", "a toy", train_toy, lambda model: (Check("answer", 0.2, 0.9, ">="),), 0.1)
    monkeypatch.setattr(trained, "recipe_of", lambda name: broken)
    found = invoke("verify", "toy")
    assert found.exit_code == 1
    assert "answer is 0.2, bar >= 0.9" in found.output


def test_a_bar_that_is_recorded_as_not_held_is_shown_and_fails_nothing(toy, monkeypatch):
    call("train", "toy")
    folder = registry.folder_of("toy")
    truth, missed = TrainedTruth.load(folder), Check("speed", 0.2, 0.9, ">=")
    made = TrainedRecipe("toy", "a toy", train_toy, lambda model: (*measure_toy(model), missed), 0.1)
    monkeypatch.setattr(trained, "recipe_of", lambda name: made)
    assert invoke("verify", "toy").exit_code == 1
    dataclasses.replace(truth, checks=(*truth.checks, missed)).save(folder)
    text = call("verify", "toy")
    assert "no, as recorded" in text and "1 of 2 bars are not held" in text and "the truth holds" in text


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys):
    with training_bar("toy") as progress:
        for step in range(1, 251):
            progress(step, 250, {"loss": 1 / step, "learning_rate": 1.0})
    assert capsys.readouterr().err.splitlines() == ["toy 100/250 loss 0.01", "toy 200/250 loss 0.005", "toy 250/250 loss 0.004"]


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with training_bar("toy") as progress:
        for steps in (20, 10):  # two parts, a bar each
            for step in range(1, steps + 1):
                progress(step, steps, {"loss": 0.25})
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "10/10" in shown
    assert "loss 0.25" in shown


def test_the_group_is_part_of_the_command_line():
    assert {command.name or command.callback.__name__ for command in organism.app.registered_commands} == {
        "list",
        "show",
        "train",
        "verify",
        "plant",
    }
    assert "organism" in CliRunner().invoke(cli.app, ["--help"]).output
