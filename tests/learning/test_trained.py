"""Networks that learn a task: trained as each would be alone, and only once."""

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hqnn_utils import files
from hqnn_utils.learning import trained
from hqnn_utils.learning.methods import METHODS, network
from hqnn_utils.learning.tasks import Task, task
from hqnn_utils.learning.trained import Settings, course, train
from hqnn_utils.learning.training import Ensemble

SETTINGS = Settings(epochs=2, batch_size=16, learning_rate=0.003)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """Where networks are kept."""
    monkeypatch.setattr(files, "cache", lambda: tmp_path)
    return tmp_path / "trained"


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """The name of every training that is done."""
    done, fit = [], trained.fit
    monkeypatch.setattr(trained, "fit", lambda *given, **how: done.append(how["name"]) or fit(*given, **how))
    return done


def two_digits() -> Task:
    """The ones and the zeros: what is learned soon."""
    every = task("digits")
    train_rows, test_rows = every.train_labels < 2, every.test_labels < 2
    return replace(
        every,
        classes=["0", "1"],
        train_inputs=every.train_inputs[train_rows],
        train_labels=every.train_labels[train_rows],
        test_inputs=every.test_inputs[test_rows],
        test_labels=every.test_labels[test_rows],
        test_items=test_rows.nonzero().squeeze(1).tolist(),
    )


def made_up(body: str, n: int = 20) -> Task:
    """A few random inputs of a body, in three classes."""
    shape = {"LeNet": (1, 28, 28), "ResNet18": (512,)}[body]
    inputs = torch.rand(2, n, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(n) % 3
    return Task("made up", "published", body, ["a", "b", "c"], inputs[0], labels, inputs[1], labels, list(range(n)), "")


# The best of several settings


def test_the_settings_that_do_best_on_held_out_images_are_taken(monkeypatch, fits):
    slow, fast = replace(SETTINGS, learning_rate=1e-7), replace(SETTINGS, learning_rate=0.003)
    settings, score = trained.best(two_digits(), "classical", [0, 1], [slow, fast])
    assert settings == fast and 0.9 < score <= 1
    assert trained.best(two_digits(), "classical", [0, 1], [slow])[1] < score
    assert len(fits) == 2  # what was trained once is not trained again
    shown = []
    monkeypatch.setattr(trained, "course", lambda task, *_: shown.append(task) or trained.Course(np.ones((1, 1, 1)), *"ab"))
    whole = two_digits()
    trained.best(whole, "classical", [0], [slow, fast])
    assert {len(task.test_labels) + len(task.train_labels) for task in shown} == {len(whole.train_labels)}


def test_a_table_is_learned_whatever_its_width():
    x = torch.randn(60, 7, generator=torch.Generator().manual_seed(0))
    labels = (x[:, 0] > 0).long()
    columns = Task("mine", "clean", "features", ["low", "high"], x[:40], labels[:40], x[40:], labels[40:], list(range(20)), "")
    ensemble, _ = train(columns, "-Q-Ent", [0, 1], replace(SETTINGS, epochs=40, learning_rate=0.01))
    assert ensemble.template.head.first.in_features == 7
    assert (columns.accuracy(ensemble) > 0.7).all()


# As each would be alone


@pytest.mark.parametrize("method", ["-Q-Ent", "-Q"])
def test_networks_of_all_seeds_learn_digits(method):
    digits = two_digits()
    ensemble, history = train(digits, method, [0, 1], SETTINGS)
    assert (history[-1] < history[0]).all()
    assert (digits.accuracy(ensemble) > 0.9).all()


def alone(task: Task, method, seed: int, n_qubits: int, depth: int) -> tuple[nn.Module, list[float]]:
    """The oracle: one network, one seed, the training loop of every torch tutorial."""
    torch.manual_seed(seed)
    model = network(task.body, method, len(task.classes), n_qubits, depth)
    order, losses = torch.Generator().manual_seed(seed), []
    optimiser = torch.optim.Adam(model.parameters(), lr=SETTINGS.learning_rate)
    for _ in range(SETTINGS.epochs):
        total = 0.0
        for rows in torch.randperm(len(task.train_labels), generator=order).split(SETTINGS.batch_size):
            loss = cross_entropy(model(task.train_inputs[rows]), task.train_labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(rows)
        losses.append(total / len(task.train_labels))
    return model, losses


@pytest.mark.parametrize(
    ("body", "method"),
    [
        ("LeNet", "-Q-Ent"),
        ("LeNet", "-linear"),
        *(("ResNet18", method) for method in ("classical", "-Q", "-Q-Ent", "-affine", "-random")),
        ("ResNet18", lambda n_qubits, depth: nn.Linear(n_qubits, n_qubits)),
    ],
)
def test_networks_of_all_seeds_are_those_that_are_trained_alone(body, method):
    seeds, sizes = [5, 2], {"n_qubits": 3, "depth": 1}
    few = made_up(body)
    ensemble, history = train(few, method, seeds, replace(SETTINGS, **sizes))
    for number, seed in enumerate(seeds):
        model, losses = alone(few, method, seed, **sizes)
        with torch.no_grad():
            torch.testing.assert_close(ensemble.predict(few.test_inputs)[number], model(few.test_inputs), atol=1e-5, rtol=0)
        torch.testing.assert_close(history[:, number], torch.tensor(losses), atol=1e-5, rtol=0)


def test_networks_have_four_qubits_two_layers_a_ring_and_a_start_near_zero_unless_told_otherwise():
    ensemble, _ = train(made_up("ResNet18"), "-Q-Ent", [0], SETTINGS)
    theta = ensemble.parameters["head.middle.theta"]
    assert (theta.shape, ensemble.template.head.middle.entangler) == ((1, 2, 4), "ring")
    assert theta.abs().max() < 0.2


def test_the_history_may_have_several_points_an_epoch():
    assert len(train(made_up("ResNet18"), "classical", [0], replace(SETTINGS, points=2))[1]) == 2 * SETTINGS.epochs


CHANGES = [
    {"epochs": 3},
    {"batch_size": 4},
    {"learning_rate": 0.01},
    {"optimizer": "sgd"},
    {"decay_every": 1},
    {"points": 2},
    {"n_qubits": 3},
    {"depth": 1},
    {"entangler": "all"},
    {"start": "uniform"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_makes_other_networks_or_another_history(change):
    few = made_up("ResNet18")
    (usual, losses), (other, history) = (train(few, "-Q-Ent", [0], how) for how in (SETTINGS, replace(SETTINGS, **change)))
    assert losses.shape != history.shape or not torch.equal(usual.predict(few.test_inputs), other.predict(few.test_inputs))


def test_the_entangler_and_the_start_are_those_of_the_settings():
    ensemble, _ = train(made_up("ResNet18"), "-Q-Ent", [0], replace(SETTINGS, entangler="linear", start="uniform"))
    assert ensemble.template.head.middle.entangler == "linear"
    assert ensemble.parameters["head.middle.theta"].abs().max() > 0.2


def test_seeds_may_begin_anywhere():
    whole, later = (train(made_up("ResNet18"), "-Q", seeds, SETTINGS)[0] for seeds in (range(4), range(2, 4)))
    for name, stacked in whole.parameters.items():
        torch.testing.assert_close(stacked[2:], later.parameters[name], atol=1e-6, rtol=0)


def test_the_course_is_what_the_networks_of_each_epoch_answer():
    few = made_up("ResNet18")
    right, loss, arrived = course(few, "-Q", [0, 1], SETTINGS)
    assert right.shape == (SETTINGS.epochs, 2, len(few.test_labels))
    for epochs, answers in enumerate(right, start=1):
        stopped, history = train(few, "-Q", [0, 1], replace(SETTINGS, epochs=epochs, points=1))
        assert (answers == few.right(stopped)).all()
    np.testing.assert_array_equal(loss, history.numpy())
    scores = stopped.predict(few.train_inputs)
    np.testing.assert_array_equal(arrived, [(one.argmax(dim=1) == few.train_labels).double().mean() for one in scores])


def test_a_label_that_is_no_class_of_the_task_is_refused():
    few = made_up("ResNet18")
    few.train_labels[4] = 3
    with pytest.raises(ValueError, match="labels must be in 0 to 2, the classes of the outputs, got 3"):
        train(few, "classical", [0], SETTINGS)


# Once


def test_networks_that_were_kept_are_those_that_were_trained_to_the_last_bit(fits):
    few = made_up("ResNet18")
    (first, losses), (again, history) = (train(few, "-Q-Ent", [0, 1], SETTINGS) for _ in range(2))
    assert fits == ["made up: ResNet18-Q-Ent"]
    assert torch.equal(losses, history)
    assert all(torch.equal(first.parameters[name], stacked) for name, stacked in again.parameters.items())
    assert torch.equal(first.predict(few.test_inputs), again.predict(few.test_inputs))


def test_a_course_is_kept_too_and_is_not_taken_for_the_networks(fits):
    few = made_up("ResNet18")
    first, again = (course(few, "-Q", [0], SETTINGS) for _ in range(2))
    assert all((one == other).all() for one, other in zip(first, again, strict=True)) and len(fits) == 1
    train(few, "-Q", [0], SETTINGS)
    assert len(fits) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [{"depth": 1}, {"entangler": "all"}, {"start": "uniform"}], ids=str)
def test_a_setting_makes_another_name_exactly_where_it_makes_other_networks(fits, method, change):
    few = made_up("ResNet18")
    first, other = (train(few, method, [0, 1], settings)[0] for settings in (SETTINGS, replace(SETTINGS, **change)))
    alone = Ensemble(partial(network, "ResNet18", method, 3, **{"depth": SETTINGS.depth} | change), [0, 1])
    start = Ensemble(partial(network, "ResNet18", method, 3, depth=SETTINGS.depth), [0, 1])
    x = few.test_inputs
    assert (len(fits) == 2) == (not torch.equal(alone.predict(x), start.predict(x)))
    assert (len(fits) == 2) == (not torch.equal(first.predict(x), other.predict(x)))


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_networks_of_other_settings_are_not_taken_for_these(fits, change):
    for settings in (SETTINGS, replace(SETTINGS, **change)):
        train(made_up("ResNet18"), "-Q-Ent", [0], settings)
    assert len(fits) == 2


@pytest.mark.parametrize("field", ["train_inputs", "train_labels", "test_inputs", "test_labels"])
def test_networks_that_learned_other_data_are_not_taken_for_these(fits, field):
    few = made_up("ResNet18")
    other = replace(few, **{field: getattr(few, field).flip(0)})
    for one in (few, other):
        train(one, "-Q", [0], SETTINGS)
    assert len(fits) == 2


@pytest.mark.parametrize(("method", "seeds"), [("-Q", [0, 1]), ("-Q", [1]), ("-Q-Ent", [0])])
def test_networks_of_another_method_or_other_seeds_are_not_taken_for_these(fits, method, seeds):
    train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    train(made_up("ResNet18"), method, seeds, SETTINGS)
    assert len(fits) == 2


@pytest.mark.parametrize("what", ["torch", "code"])
def test_networks_of_another_torch_or_other_code_are_not_taken_for_these(fits, monkeypatch, what):
    train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    if what == "torch":
        monkeypatch.setattr(torch, "__version__", "99")
    else:
        monkeypatch.setattr(trained, "_code", lambda: "other code")
    train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    assert len(fits) == 2


@pytest.mark.parametrize(
    ("line", "same"), [("# a comment", True), ("VERY_NEW = 1", False)], ids=["a comment", "a new line of code"]
)
@pytest.mark.parametrize("module", ["learning/training.py", "quantum/statevector.py"])
def test_code_is_other_code_when_it_says_something_else(monkeypatch, tmp_path, module, line, same):
    for wing in ("learning", "quantum"):
        (tmp_path / wing).mkdir()
        for source in (files.PACKAGE / wing).glob("*.py"):
            (tmp_path / wing / source.name).write_bytes(source.read_bytes())
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    before = trained._code()
    monkeypatch.setattr(files, "PACKAGE", tmp_path)
    trained._code.cache_clear()
    assert (trained._code() == before) is same
    trained._code.cache_clear()


def test_networks_that_are_asked_for_fresh_are_trained_anew(fits, monkeypatch):
    train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    monkeypatch.setenv("HQNN_FRESH", "1")
    train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    assert len(fits) == 2


def test_networks_that_were_altered_are_trained_anew_with_a_warning(fits, cache):
    first, _ = train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    (file,) = cache.glob("*.kept")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is not as it was kept, and is computed anew"):
        again, _ = train(made_up("ResNet18"), "-Q", [0], SETTINGS)
    assert len(fits) == 2
    assert all(torch.equal(first.parameters[name], stacked) for name, stacked in again.parameters.items())


def test_a_middle_of_your_own_is_trained_each_time_since_its_code_is_not_known(fits, cache):
    def own(n_qubits, depth):
        return nn.Linear(n_qubits, n_qubits)

    for _ in range(2):
        train(made_up("ResNet18"), own, [0], SETTINGS)
    assert fits == ["made up: ResNet18-own"] * 2 and not cache.exists()


def test_a_training_that_fails_keeps_nothing(fits, cache):
    few = made_up("ResNet18")
    few.train_labels[4] = 3
    for _ in range(2):
        with pytest.raises(ValueError, match="labels must be in 0 to 2"):
            train(few, "-Q", [0], SETTINGS)
    assert len(fits) == 2 and not list(cache.glob("*.kept"))


PROGRAM = """
import sys
from pathlib import Path
from hqnn_utils import files
from hqnn_utils.learning import tasks, trained
files.cache = lambda: Path(sys.argv[1])
fit = trained.fit
trained.fit = lambda *given, **how: print("trained") or fit(*given, **how)
few = tasks.task("digits", train_size=100, test_size=50)
ensemble, _ = trained.train(few, "-Q", [0], trained.Settings(epochs=3, batch_size=4, learning_rate=0.003))
print(ensemble.parameters["head.middle.theta"].flatten().tolist())
"""


def test_of_two_processes_that_ask_at_the_same_time_one_trains(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = sorted((process.communicate(timeout=240)[0].splitlines() for process in both), key=len)
    assert [len(lines) for lines in said] == [1, 2] and said[0][0] == said[1][1]
