"""Experiments as programs: run with parameters, on the data set that is everywhere, and refused where they should be."""

import os
import runpy
import tomllib
from functools import partial
from pathlib import Path

import pytest

from hqnn_utils import files
from hqnn_utils.hardware.emulator import serving
from hqnn_utils.notebooks import kernels, results, runs

CLASSIFIER = runs.find("quantum_classifier")
BRIEF = {  # as text
    chapter: {name: str(value) for name, value in given.items()}
    for chapter, given in tomllib.loads((Path(__file__).parents[1] / "brief.toml").read_text(encoding="utf-8")).items()
}
QUICK = {"dataset": "digits", "seeds": "3", "small_sizes": "25,50", "small_steps": "2,4", "small_epochs": "2"}


@pytest.fixture(autouse=True, scope="module")
def warm():
    """A kernel is a fork: imports of ten seconds are made once."""
    kernels.start()


@pytest.fixture(scope="module")
def papermill(in_process):
    """Plain papermill, as `hqnn` of `tests/conftest.py`."""
    from papermill.cli import papermill

    return partial(in_process, papermill)


def options(parameters: dict[str, str]) -> list[str]:
    return [word for name, value in parameters.items() for word in ("-p", name, value)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, results.Result]:
    """The classifier on digits, trained long enough to classify."""
    output = tmp_path_factory.mktemp("runs") / "classifier.ipynb"
    runs.run("quantum_classifier", QUICK | {"epochs": "25"}, output)
    return results.of(output)


def test_the_classifier_learns_digits(trained):
    for head in ("quantum", "sine", "sigmoid"):
        assert trained[f"{head}_test_accuracy"].value > 0.95
        assert -1 <= trained[f"{head}_train_loss"].value < -0.9


def test_quantum_and_sine_are_one_function(trained):
    assert trained["apart_before"].value < 1e-6
    assert trained["twins_loss_gap"].value < 0.01


def test_one_shot_is_right_as_often_as_the_loss_says(trained):
    n = trained["n_test"].value * trained["seeds"].value
    expected = trained["minus_loss"].value
    assert abs(trained["accuracy_1"].value - expected) < 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-3


def test_a_run_records_the_same_results_as_the_committed_one(trained):
    sized = ("small_test_",)  # named by the sizes that were asked for
    committed = {name for name in results.of(CLASSIFIER) if not name.startswith(sized)}
    assert committed == {name for name in trained if not name.startswith(sized)}


def test_seeds_can_be_divided_between_two_jobs(tmp_path):
    def mean_loss(first: int, seeds: int) -> float:
        output = tmp_path / f"{first}.{seeds}.ipynb"
        runs.run("quantum_classifier", QUICK | {"epochs": "1", "first_seed": str(first), "seeds": str(seeds)}, output)
        return results.of(output)["quantum_test_loss"].value

    first, second, both = mean_loss(0, 2), mean_loss(2, 2), mean_loss(0, 4)
    assert first != second and both == pytest.approx((first + second) / 2, abs=1e-6)


def test_training_works_with_finite_shots(tmp_path):
    output = tmp_path / "shots.ipynb"
    runs.run("quantum_classifier", QUICK | {"epochs": "4", "shots": "20", "train_size": "100"}, output)
    found = results.of(output)
    assert found["quantum_train_loss"].value < -0.6  # from -0.5, where guessing stays
    assert found["twins_differ"].value > 0  # shots are noise, so the twins part


def test_networks_of_experiment_3_may_be_made_and_trained_otherwise(tmp_path):
    usual = {"dataset": "digits"} | BRIEF["many_networks"]
    otherwise = dict(entangler="linear", depth="4", start="uniform", optimizer="rmsprop", first_seed="7", n_qubits="5")
    otherwise |= dict(torch_device="auto", train_size="200", test_size="60", decay_every="1", margin="50")
    found = {}
    for name, given in (("usual", usual), ("otherwise", usual | otherwise)):
        runs.run("many_networks", given, tmp_path / f"{name}.ipynb")
        found[name] = results.of(tmp_path / f"{name}.ipynb")
    assert found["usual"].keys() == found["otherwise"].keys()
    assert (found["usual"]["alone"].value, found["otherwise"]["alone"].value) == (0, 4)  # a chain of four layers undoes itself
    assert (found["otherwise"]["n_train"].value, found["otherwise"]["n_test"].value) == (200, 60)
    assert found["usual"]["accuracy_q_ent"].value != found["otherwise"]["accuracy_q_ent"].value


def test_quantum_and_sine_stay_one_function_in_ten_classes(tmp_path):
    output = tmp_path / "activation.ipynb"
    runs.run("quantum_activation", {"dataset": "digits"} | BRIEF["quantum_activation"] | {"controls": "['sine']"}, output)
    found = results.of(output)
    assert found["apart_double"].value < 1e-12 < found["apart_single"].value < 1e-3
    assert found["apart_tanh"].value > 100 * found["apart_single"].value
    assert found["least_found"].value == pytest.approx(found["least_1"].value, abs=1e-4)
    table = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/activations.py"))["rows"](files.read_notebook(output))
    assert len(table) == 2 * 2 * 4  # seeds, rates and marks
    assert table[table["tested"] != ""][["rate", "seed", "epoch"]].to_numpy().tolist() == [
        *([0.003, seed, 3] for seed in (0, 1)),  # after the first epochs at the first rate, and at the end with the best
        *([0.01, seed, 4] for seed in (0, 1)),
    ]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", "0", "parameter epochs = 0 refused: allowed is in [1, 1000]"),
        ("epochs", "two", "parameter epochs = 'two' refused: expected int"),
        ("epoch", "2", "unknown parameter 'epoch': did you mean epochs"),
        ("dataset", "minst", "allowed is in {mnist, digits}"),
    ],
)
def test_the_notebook_refuses_under_plain_papermill(papermill, name, value, message, tmp_path):
    done = papermill(str(CLASSIFIER), str(tmp_path / "out.ipynb"), "-p", name, value)
    assert done.returncode != 0 and message in done.stderr


@pytest.mark.parametrize(
    ("chapter", "given", "message"),
    [
        ("quantum_classifier", {"epochs": "0"}, "allowed is in [1, 1000]"),
        ("quantum_classifier", {"digits": "1,1"}, "expected 2 different values"),
        ("quantum_classifier", {"train_size": "-5"}, "allowed is in [0, 60000]"),
        ("quantum_classifier", {"learning_rate": "0"}, "allowed is in (0, 1]"),
        ("quantum_classifier", {"sedes": "3"}, "did you mean seeds?"),
        ("quantum_activation", {"controls": "['swish']"}, "allowed is in {sine, tanh, sigmoid, relu}"),
        ("quantum_activation", {"shots": "[]"}, "expected at least one value"),
        ("gradients_in_training", {"controls": "['swish']"}, "allowed is in {tanh, sigmoid, relu}"),
        ("gradient_vanishing", {"epsilon": "0"}, "allowed is in [0.001, 0.99]"),
        ("gradient_vanishing", {"epsilon": "-0.1"}, "allowed is in [0.001, 0.99]"),
        ("quantum_entanglement", {"entangler": "none"}, "allowed is in {ring, linear, all, brick}"),
        ("controls", {"controls": "-sin"}, "allowed is in {-linear, -sine, -affine, -mlp, -random}"),
        ("barren_plateaus", {"entangler": "star"}, "allowed is in {none, linear, ring, all, brick}"),
        ("barren_plateaus", {"patterns": "brick,star"}, "allowed is in {none, linear, ring, all, brick}"),
        ("barren_plateaus", {"patterns": "ring,ring"}, "expected different values"),
        ("barren_plateaus", {"n_qubits": "20"}, "allowed is in [6, 10]"),
        ("barren_plateaus", {"noise": "0.9"}, "allowed is in [0, 0.5]"),
        ("universe", {"encoding": "amplitude"}, "allowed is in {h_ry, ry, h_rz, rx_rz}"),
        ("universe", {"pick": "luck"}, "allowed is in {last, validation, test}"),
        ("many_networks", {"optimizer": "lbfgs"}, "allowed is in {adam, adamw, rmsprop, sgd}"),
        ("many_networks", {"first_seed": "-1"}, "allowed is in [0, 1000000]"),
        ("gradients_in_training", {"initial": "zeros"}, "allowed is in {torch, xavier, kaiming}"),
        ("quantum_classifier", {"optimizer": "lbfgs"}, "allowed is in {adam, adamw, rmsprop, sgd}"),
        ("quantum_entanglement", {"datasets": "hymenoptera,bees"}, "allowed is in {any, mnist, hymenoptera, brain_tumor"),
        ("quantum_entanglement", {"weights": "resnet50"}, "allowed is in {resnet18, resnet18-pqf}"),
        ("quantum_entanglement", {"n_qubits": "600"}, "allowed is in [2, 6]"),
        ("many_networks", {"margin": "-1"}, "parameter margin = -1 refused"),
        ("device_costs", {"processor": "Aspen-9"}, "allowed is in {, arn:aws:braket:*/qpu/*}"),
        ("device_costs", {"budget_usd": "-1"}, "allowed is in [0, 10000]"),
    ],
)
def test_hqnn_run_refuses_before_a_kernel_starts(hqnn, chapter, given, message, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_execute", lambda _: pytest.fail("a kernel was started"))
    output = tmp_path / "out.ipynb"
    done = hqnn("run", chapter, *options(given), "-o", str(output))
    assert done.returncode == 2 and message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_images_than_there_are_is_refused_with_their_number(hqnn, tmp_path):
    given = QUICK | {"train_size": "5000"}
    done = hqnn("run", "quantum_classifier", *options(given), "-o", str(tmp_path / "out.ipynb"))
    assert done.returncode == 1 and "DataError: train size must be 0 (all) or 2 to 251" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_qubits_than_memory_are_refused_with_a_way_on(hqnn, tmp_path):
    given = BRIEF["barren_plateaus"] | {"max_qubits": "40"}
    done = hqnn("run", "barren_plateaus", *options(given), "-o", str(tmp_path / "out.ipynb"))
    assert done.returncode == 1
    assert "MemoryError: 40 qubits" in done.stderr and "take fewer qubits, fewer layers or a smaller batch" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_images_runs_on_what_it_has_and_says_what_is_missing(hqnn, tmp_path):
    chapter = "quantum_entanglement"
    output, closed = tmp_path / "out.ipynb", "http://127.0.0.1:9"
    proxies = dict(HTTPS_PROXY=closed, HTTP_PROXY=closed, https_proxy=closed, http_proxy=closed)
    done = hqnn("run", chapter, *options(BRIEF[chapter]), "-o", str(output), HQNN_DATA=str(tmp_path / "data"), **proxies)
    assert done.returncode == 0, done.stderr[-2000:]
    assert results.of(output)["dataset"].value == "digits"
    said = output.read_text(encoding="utf-8")
    for name in ("mnist", "hymenoptera", "brain_tumor", "chessman"):
        assert f"hqnn data fetch {name}" in said, "what is missing, and the way to it"


def paid(record: Path, output: Path, **given: str) -> list[str]:
    """The command that runs the chapter on devices with an account."""
    given = {"dataset": "digits", "paid": "True", "record": str(record)} | given
    return ["run", "device_costs", *options(BRIEF["device_costs"] | given), "-o", str(output)]


def test_a_paid_run_stays_within_its_budget_and_leaks_nothing(hqnn, papermill, tmp_path):
    output, record = tmp_path / "out.ipynb", tmp_path / "paid"
    brief = "\n".join(f"{name}: {value}" for name, value in BRIEF["device_costs"].items())
    plain = [str(runs.find("device_costs")), str(output), "-y", brief, "-p", "dataset", "digits"]
    with serving(readout=0.02) as (service, variables):
        variables["AWS_SECRET_ACCESS_KEY"] = "a secret of the reader"
        refused = hqnn(*paid(record, output, remote="processor", budget_usd="5"), **variables)
        assert refused.returncode == 1 and not output.exists() and not service.tasks
        assert "BudgetError: processor: 18 circuits of 1,000 shots in 18 tasks for about $21.60 would exceed" in refused.stderr
        given = {"paid": "True", "record": str(record), "remote": "processor", "budget_usd": "22"}
        done = papermill(*plain, *options(given), **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    found = results.of(output)
    assert len(service.tasks) == 18 and found["usd_paid"].value == pytest.approx(21.6)
    assert found["dataset"].value == "digits" and found["circuits"].value == 18
    buckets = {task.request["outputS3Bucket"] for task in service.tasks.values()}
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in {service.account, "a secret of the reader", *buckets}:
        assert not [text for text in [*written, done.stdout, done.stderr, refused.stderr] if secret in text]


def test_a_paid_run_without_credentials_says_how_to_have_some(hqnn, tmp_path):
    nothing = dict(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true")
    done = hqnn(*paid(tmp_path / "paid", tmp_path / "out.ipynb", budget_usd="5"), AWS_DEFAULT_REGION="us-east-1", **nothing)
    assert done.returncode == 1 and "DeviceError: sv1 cannot be used: no AWS credentials are found" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_cannot_be_had_ends_the_run_with_a_way_on(hqnn, tmp_path):
    closed = "http://127.0.0.1:9"  # nothing listens there: the network is away
    root = tmp_path / "data"
    environment = dict(HQNN_DATA=str(root), HTTPS_PROXY=closed, HTTP_PROXY=closed, https_proxy=closed, http_proxy=closed)
    done = hqnn("run", "quantum_classifier", "-o", str(tmp_path / "out.ipynb"), **environment)
    assert done.returncode == 1
    for part in ("'mnist'", str(root), "hqnn data fetch mnist", "dataset=digits"):
        assert part in done.stderr
    assert not (tmp_path / "out.ipynb").exists()


@pytest.fixture(scope="module")
def picked(hqnn, tmp_path_factory) -> dict[str, dict]:
    """The results of a universe that reports its last epoch, the best one in validation, and the best one in the test."""
    found = {}
    for pick in "last", "validation", "test":
        output = tmp_path_factory.mktemp("universes") / f"{pick}.ipynb"
        given = {"dataset": "digits"} | BRIEF["universe"] | {"pick": pick, "epochs": "4"}
        done = hqnn("run", "universe", *options(given), "-o", str(output))
        assert done.returncode == 0, done.stderr
        found[pick] = {name: result.value for name, result in results.of(output).items()}
    return found


@pytest.mark.parametrize(("pick", "held_out"), [("last", 0), ("validation", 40), ("test", 0)])
def test_a_universe_holds_out_of_the_training_what_it_picks_its_epoch_by(picked, pick, held_out):
    assert picked["last"]["n_train"] - picked[pick]["n_train"] == held_out and picked[pick]["n_test"] == 50


@pytest.mark.parametrize("kind", ["classical", "q", "q_ent"])
def test_the_best_epoch_of_the_test_is_never_below_the_last(picked, kind):
    assert picked["test"][f"accuracy_{kind}"] >= picked["last"][f"accuracy_{kind}"]
