"""The benchmark compares like with like, and its results can be read. Nothing here is timed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def systems():
    sys.path.insert(0, str(BENCHMARKS))
    import systems

    yield systems
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("n, depth, batch", [(2, 1, 1), (4, 2, 3), (7, 3, 2)])
def test_every_system_of_our_environment_gives_the_values_and_gradients_of_the_definition(systems, n, depth, batch):
    ours = [name for name, system in systems.SYSTEMS.items() if system.environment == "main" and name != systems.FLOOR]
    assert len(ours) == 4
    for name in ours:
        assert systems.deviation(systems.layer_step(name, n, depth, batch)(), n, depth, batch) < systems.TOLERANCE, name


def test_a_system_with_other_gradients_is_refused(systems, monkeypatch):
    def negated(n, depth):
        return systems.Function(lambda x, theta: -x * theta.sum(), n, depth)

    monkeypatch.setitem(systems.SYSTEMS, "wrong", systems.System("wrong", "main", negated))
    with pytest.raises(ValueError, match="deviates from the definition"):
        systems.build("wrong", "layer", 3, 1, 2)


@pytest.mark.parametrize(
    "constant, value, n, depth",
    [("WHOLE_WIRES", 0, 6, 2), ("BLOCK_WIRES", 2, 7, 2), ("TABLE_ANGLES", 5, 4, 2), ("TABLE_ENTRIES", 2**12, 4, 3)],
)
def test_a_choice_holds_where_its_circuit_is_compiled_and_changes_no_result(systems, monkeypatch, constant, value, n, depth):
    usual, seen, plans = getattr(systems.fusion, constant), [], []

    def watched(*arguments):
        seen.append(getattr(systems.fusion, constant))
        plans.append(systems.fusion.Plan(*arguments))
        return plans[-1]

    monkeypatch.setattr("hqnn_utils.quantum.programs.Plan", watched)
    step = systems.build("statevector", "choice", n, depth, 3, constant=constant, value=value)
    assert systems.deviation(step(), n, depth, 3) < systems.TOLERANCE
    assert seen == [value] and getattr(systems.fusion, constant) == usual
    systems.layer_step("statevector", n, depth, 3)()
    assert seen == [value, usual]
    chosen, ours = ([[part.tables.shape for part in group] for group in plan.groups] for plan in plans)
    assert chosen != ours


def test_every_choice_of_a_constant_gives_the_values_and_gradients_of_the_definition(systems):
    import layer

    for constant, values, size in layer.CHOICES:
        for value in {min(values), max(values)} if size["n"] < 8 else ():
            systems.build("statevector", "choice", **size, constant=constant, value=value)


@pytest.mark.usefixtures("unchecked", "systems")
def test_compiled_networks_take_turns_with_their_originals_and_with_their_classical_twins():
    import compiled

    rows = compiled.measure(rounds=1, backend="eager")  # which compares their gradients
    assert [(row["middle"], row["batch"]) for row in rows] == [(m, b) for b in (4, 1024) for m in ("quantum", "classical")]
    assert all(row["ratio"] == row["compiled_us"] / row["eager_us"] > 0 for row in rows)


def test_many_models_at_once_are_the_models_one_by_one(systems):
    values, grad_x, grad_theta = systems.models_step("statevector", 4, 2, 3)()
    for seed in (0, systems.MODELS - 1):
        found = values[seed], grad_x[seed], grad_theta[seed]
        assert systems.deviation(found, 4, 2, 3, seed) < systems.TOLERANCE


def test_steps_of_the_head_train_it(systems):
    step = systems.head_step("statevector", 4, 2, 4)
    losses = [float(step()) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_worker_answers_every_line_with_times_or_with_a_reason():
    size = {"case": "layer", "n": 3, "depth": 1, "batch": 2}
    requests = [{"system": "statevector", **size, "repeats": 3}, {"system": "unknown", **size, "repeats": 1}]
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    command = [sys.executable, BENCHMARKS / "worker.py"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=240)
    about, times, refused = map(json.loads, done.stdout.splitlines())
    assert about["threads"] == 1 and "torch" in about["versions"]
    assert len(times["seconds"]) == 3 and min(times["seconds"]) > 0
    assert "unknown" in refused["error"]


def test_the_committed_results_hold_together_and_name_no_place(systems):
    path = BENCHMARKS / "results.json"
    if not path.exists():
        pytest.skip("not measured yet: make bench")
    text = path.read_text()
    results = json.loads(text)
    assert set(results) == {"meta", "rows", "choices", "dropped", "usable_from_torch"}
    assert {"date", "cores", "threads", "python", "versions"} <= set(results["meta"])
    assert {row["case"] for row in results["rows"]} == {"batch", "width", "depth", "head", "models"}
    constants = {"WHOLE_WIRES", "BLOCK_WIRES", "TABLE_ANGLES", "TABLE_ENTRIES"}
    assert {row["constant"] for row in results["choices"]} == constants
    assert all(row["system"] in results["usable_from_torch"] for row in results["rows"])
    for row in results["rows"] + results["choices"]:
        assert 0 < row["low_s"] <= row["median_s"] <= row["high_s"]
        assert row["rounds"] == len(row["seconds"]) and np.median(row["seconds"]) == row["median_s"]
    assert all(set(drop) == {"system", "why"} for drop in results["dropped"])
    assert "/" not in text


@pytest.fixture(scope="module")
def experiment():
    sys.path.insert(0, str(BENCHMARKS))
    import experiment

    yield experiment
    sys.path.remove(str(BENCHMARKS))


def test_the_plain_loop_trains_the_network_that_is_trained_at_once(experiment):
    import torch

    from hqnn_utils.learning.methods import network

    textbook, ours = experiment.textbook(), network("ResNet18", "-Q-Ent", 2)
    for theirs, mine in zip(textbook.parameters(), ours.parameters(), strict=True):
        assert theirs.shape == mine.shape
        theirs.data.copy_(mine.data + (1.0 if mine.shape == (2, 4) else 0.0))
        mine.data.copy_(theirs.data)
    x = torch.rand(5, 512)
    torch.testing.assert_close(textbook(x).float(), ours(x), atol=1e-5, rtol=0)


def test_the_committed_report_of_the_experiment_is_that_of_its_results(experiment):
    results = json.loads((BENCHMARKS / "experiment.json").read_text())
    assert experiment.report(results) == (BENCHMARKS / "experiment.md").read_text()
    assert len(results["table_s"]) == 12 and results["seeds"] >= 30
