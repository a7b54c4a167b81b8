"""Experiments as programs: run with parameters, on the data set that is everywhere, and refused where they should be."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hqnn_utils.hardware.emulator import serving
from hqnn_utils.notebooks import parameters, results, runs

BIN = Path(sys.executable).parent
EXPERIMENTS = [path for path in runs.chapters().values() if path.parent.name in ("experiments", "evidence")]
CLASSIFIER = runs.find("quantum_classifier")
BRIEF = {
    "quantum_classifier": dict(epochs="1", seeds="3", small_epochs="2"),
    "quantum_activation": dict(
        epochs="3", seeds="2", compare_size="400", compare_epochs="1", compare_seeds="2", small_size="300", device_steps="1"
    ),
    "quantum_entanglement": dict(seeds="2", mnist_size="200", test_size="50", mnist_epochs="2", depth_seeds="2"),
    "how_strong": dict(
        seeds="2",
        mnist_seeds="2",
        mnist_size="200",
        test_size="50",
        mnist_epochs="2",
        peek_epochs="2",
        few_seeds="2",
        pair_epochs="2",
    ),
    "device_timing": dict(
        n_qubits="2",
        depth="1",
        batch="2",
        repeats="1",
        limit_s="0",
        latencies="[0.02, 0.1]",
        queue_s="0",
        max_qubits="8",
        circuit_limit_s="0.1",
    ),
    "gradient_vanishing": dict(
        seeds="2", early_steps="10", depth="6", width="32", starts="50", max_qubits="6", layers="6", samples="40", points="200"
    ),
}
"""Parameters with which an experiment takes seconds."""
QUICK = {"dataset": "digits", "seeds": "3", "small_sizes": "25,50", "small_epochs": "2"}


def call(*command, **environment) -> subprocess.CompletedProcess:
    """A command of the environment, as a reader types it."""
    env = os.environ | environment
    return subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, env=env, timeout=240)


def options(parameters: dict[str, str]) -> list[str]:
    return [word for name, value in parameters.items() for word in ("-p", name, value)]


def papermill_options(path: Path) -> list[str]:
    """What makes papermill run an experiment briefly and on the data set that is everywhere; lists are YAML to it."""
    digits = {"datasets": "[digits]"} if "datasets" in parameters.of(path) else {"dataset": "digits"}
    given = (BRIEF[path.stem] | digits).items()
    return [word for name, v in given for word in (("-y", f"{name}: {v}") if v.startswith("[") else ("-p", name, v))]


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


def test_training_works_with_finite_shots(tmp_path):
    output = tmp_path / "shots.ipynb"
    runs.run("quantum_classifier", QUICK | {"epochs": "4", "shots": "20", "train_size": "100"}, output)
    found = results.of(output)
    assert found["quantum_train_loss"].value < -0.6  # from -0.5, where guessing stays
    assert found["twins_differ"].value > 0  # shots are noise, so the twins part


@pytest.mark.parametrize("path", [path for path in EXPERIMENTS if path.stem != "device_timing"], ids=lambda path: path.stem)
def test_plain_papermill_runs_every_experiment_on_digits(path, tmp_path):
    output = tmp_path / "out.ipynb"
    done = call("papermill", str(path), str(output), *papermill_options(path))
    assert done.returncode == 0, done.stderr[-2000:]
    found, committed = results.of(output), results.of(path)
    assert found["dataset"].value == "digits" and committed["dataset"].value != "digits"
    accuracy = found.get("quantum_test_accuracy")
    assert accuracy is None or 0.5 < accuracy.value <= 1


def test_networks_of_experiment_3_may_be_made_and_trained_otherwise(tmp_path):
    otherwise = dict(methods="-sine", entangler="linear", start="uniform", optimizer="rmsprop", first_seed="7")
    otherwise |= dict(split="clean", features="standardised", torch_device="auto", depths="1,2")
    runs.run(
        "quantum_entanglement", {"datasets": "digits"} | BRIEF["quantum_entanglement"] | otherwise, tmp_path / "out.ipynb"
    )
    found = results.of(tmp_path / "out.ipynb")
    assert {"digits_sine", "digits_ent_over_classical"} <= found.keys()
    assert found["n_cnots"].value == 2 * 3  # a line of four qubits, twice
    assert found["digits_ent_theta"].value > 0.5  # far from the start near zero


def test_quantum_and_sine_stay_one_function_in_ten_classes(tmp_path):
    output = tmp_path / "activation.ipynb"
    runs.run("quantum_activation", {"dataset": "digits"} | BRIEF["quantum_activation"] | {"controls": "['sine']"}, output)
    found = results.of(output)
    assert found["apart_double"].value < 1e-12 < found["apart_single"].value < 1e-3
    assert found["apart_tanh"].value > 100 * found["apart_single"].value
    assert found["least_found"].value == pytest.approx(found["least_1"].value, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", "0", "parameter epochs = 0 refused: allowed is in [1, 1000]"),
        ("epochs", "two", "parameter epochs = 'two' refused: expected int"),
        ("epoch", "2", "unknown parameter 'epoch': did you mean epochs"),
        ("dataset", "minst", "allowed is in {mnist, digits}"),
    ],
)
def test_the_notebook_refuses_under_plain_papermill(name, value, message, tmp_path):
    done = call("papermill", str(CLASSIFIER), str(tmp_path / "out.ipynb"), "-p", name, value)
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
        ("gradient_vanishing", {"controls": "['swish']"}, "allowed is in {tanh, sigmoid, relu}"),
        ("gradient_vanishing", {"epsilon": "0"}, "allowed is in [0.001, 0.99]"),
        ("gradient_vanishing", {"epsilon": "-0.1"}, "allowed is in [0.001, 0.99]"),
        ("quantum_entanglement", {"entangler": "none"}, "allowed is in {ring, linear, all}"),
        ("quantum_entanglement", {"methods": "-sin"}, "allowed is in {classical, -linear, -sine"),
        ("how_strong", {"optimizer": "lbfgs"}, "allowed is in {adam, adamw, rmsprop, sgd}"),
        ("how_strong", {"first_seed": "-1"}, "allowed is in [0, 1000000]"),
        ("quantum_entanglement", {"datasets": "hymenoptera,bees"}, "allowed is in {any, mnist, hymenoptera, brain_tumor"),
        ("quantum_entanglement", {"weights": "resnet50"}, "allowed is in {resnet18, resnet18-pqf}"),
        ("quantum_entanglement", {"n_qubits": "600"}, "allowed is in [2, 6]"),
        ("how_strong", {"margin": "0"}, "parameter margin = 0 refused"),
        ("device_timing", {"processor": "Aspen-9"}, "allowed is in {, arn:aws:braket:*/qpu/*}"),
        ("device_timing", {"budget_usd": "-1"}, "allowed is in [0, 10000]"),
    ],
)
def test_hqnn_run_refuses_before_a_kernel_starts(chapter, given, message, tmp_path):
    output = tmp_path / "out.ipynb"
    started = time.monotonic()
    done = call("hqnn", "run", chapter, *options(given), "-o", str(output))
    assert done.returncode == 2 and message in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 30, "no kernel starts that fast, but a slow machine may import slowly"


def test_more_images_than_there_are_is_refused_with_their_number(tmp_path):
    given = QUICK | {"train_size": "5000"}
    done = call("hqnn", "run", "quantum_classifier", *options(given), "-o", str(tmp_path / "out.ipynb"))
    assert done.returncode == 1 and "DataError: train size must be 0 (all) or 2 to 251" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_qubits_than_memory_are_refused_with_a_way_on(tmp_path):
    given = {"dataset": "digits"} | BRIEF["gradient_vanishing"] | {"max_qubits": "40"}
    done = call("hqnn", "run", "gradient_vanishing", *options(given), "-o", str(tmp_path / "out.ipynb"))
    assert done.returncode == 1
    assert "MemoryError: 40 qubits" in done.stderr and "take fewer qubits, fewer layers or a smaller batch" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_images_runs_on_what_it_has_and_says_what_is_missing(tmp_path):
    chapter = "quantum_entanglement"  # how_strong asks for its data in the same words
    output, closed = tmp_path / "out.ipynb", "http://127.0.0.1:9"
    proxies = dict(HTTPS_PROXY=closed, HTTP_PROXY=closed, https_proxy=closed, http_proxy=closed)
    done = call(
        "hqnn", "run", chapter, *options(BRIEF[chapter]), "-o", str(output), HQNN_DATA=str(tmp_path / "data"), **proxies
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert results.of(output)["dataset"].value == "digits"
    said = output.read_text(encoding="utf-8")
    for name in ("mnist", "hymenoptera", "brain_tumor", "chessman"):
        assert f"hqnn data fetch {name}" in said, "what is missing, and the way to it"


def paid(record: Path, output: Path, **given: str) -> list[str]:
    """The command that runs the chapter on devices with an account."""
    given = {"dataset": "digits", "paid": "True", "record": str(record)} | given
    return ["hqnn", "run", "device_timing", *options(BRIEF["device_timing"] | given), "-o", str(output)]


def test_a_paid_run_stays_within_its_budget_and_leaks_nothing(tmp_path):
    output, record = tmp_path / "out.ipynb", tmp_path / "paid"
    plain = ["papermill", str(runs.find("device_timing")), str(output), *papermill_options(runs.find("device_timing"))]
    with serving(readout=0.02) as (service, variables):
        variables["AWS_SECRET_ACCESS_KEY"] = "a secret of the reader"
        refused = call(*paid(record, output, remote="processor", budget_usd="5"), **variables)
        assert refused.returncode == 1 and not output.exists() and not service.tasks
        assert "BudgetError: processor: 18 circuits of 1,000 shots in 18 tasks for about $21.60 would exceed" in refused.stderr
        given = {"paid": "True", "record": str(record), "remote": "processor", "budget_usd": "22"}
        done = call(*plain, *options(given), **variables)
    assert done.returncode == 0, done.stderr[-2000:]
    found = results.of(output)
    assert len(service.tasks) == 18 and found["usd_paid"].value == pytest.approx(21.6)
    assert found["dataset"].value == "digits" and found["circuits"].value == 18
    buckets = {task.request["outputS3Bucket"] for task in service.tasks.values()}
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for secret in {service.account, "a secret of the reader", *buckets}:
        assert not [text for text in [*written, done.stdout, done.stderr, refused.stderr] if secret in text]


def test_a_paid_run_without_credentials_says_how_to_have_some(tmp_path):
    nothing = dict(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull, AWS_EC2_METADATA_DISABLED="true")
    done = call(*paid(tmp_path / "paid", tmp_path / "out.ipynb", budget_usd="5"), AWS_DEFAULT_REGION="us-east-1", **nothing)
    assert done.returncode == 1 and "DeviceError: sv1 cannot be used: no AWS credentials are found" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_cannot_be_had_ends_the_run_with_a_way_on(tmp_path):
    closed = "http://127.0.0.1:9"  # nothing listens there: the network is away
    root = tmp_path / "data"
    environment = dict(HQNN_DATA=str(root), HTTPS_PROXY=closed, HTTP_PROXY=closed, https_proxy=closed, http_proxy=closed)
    done = call("hqnn", "run", "quantum_classifier", "-o", str(tmp_path / "out.ipynb"), **environment)
    assert done.returncode == 1
    for part in ("'mnist'", str(root), "hqnn data fetch mnist", "dataset=digits"):
        assert part in done.stderr
    assert not (tmp_path / "out.ipynb").exists()
