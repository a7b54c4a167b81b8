"""The devices: what they are, whether they can be used here and why not, what they cost, and that they compute the same."""

import os
import socket
from unittest import mock

import pennylane as qml
import pytest
import torch
from click.testing import CliRunner

from hqnn_utils.cli import main
from hqnn_utils.hardware import devices
from hqnn_utils.hardware.devices import Availability, DeviceError, Price, availability, device
from hqnn_utils.hardware.emulator import PROCESSOR, serving
from hqnn_utils.quantum.layers import QuantumLayer

HERE = [name for name, entry in devices.listed().items() if not entry.remote]
SV1 = device("sv1")


@pytest.fixture
def aws(monkeypatch):
    """Sets the AWS settings of this process, and takes away all others; by default credentials and a region."""

    def set_(**variables):
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        nothing = {
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (nothing | keys | variables).items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)

    return set_


def values_and_gradients(simulator, shots: int = 0) -> torch.Tensor:
    layer = QuantumLayer(3, 2, simulator=simulator, diff_method="parameter-shift", shots=shots, seed=0)
    layer.theta.data = torch.linspace(-1, 1, 6).reshape(2, 3)
    x = torch.tensor([[0.5, 1.1, -0.2], [0.1, -2.0, 0.7]], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    return torch.cat([y.detach().flatten(), x.grad.flatten(), layer.theta.grad.flatten()])


@pytest.mark.parametrize("name", HERE)
def test_every_device_of_this_machine_is_usable_and_computes_the_same(name):
    entry = device(name)
    assert availability(entry) == (True, True, "")
    found = values_and_gradients(devices.connect(entry, 3), entry.shots)
    torch.testing.assert_close(found, values_and_gradients("statevector"), rtol=0, atol=0.2 if entry.shots else 1e-5)


def test_one_by_one_computes_the_same_with_a_simulation_for_each_circuit():
    batched, single = (devices.connect(device("default.qubit"), 3, one_by_one=one) for one in (False, True))
    counted = []
    for backend in (batched, single):
        with qml.Tracker(backend) as tracker:
            torch.testing.assert_close(values_and_gradients(backend), values_and_gradients("statevector"), rtol=0, atol=1e-5)
        counted.append((tracker.totals["executions"], tracker.totals["simulations"]))
    circuits = 2 * (1 + 2 * 9)
    assert counted == [(circuits, 2), (circuits, circuits)]


def test_aer_transpiles_with_one_pass_manager_and_returns_what_its_own_transpilation_returns():
    from qiskit.quantum_info import Operator

    ours, theirs = devices.connect(device("qiskit.aer"), 3), qml.device("qiskit.aer", wires=3)
    circuits = []
    for backend in (ours, theirs):
        plugin = backend.target_device
        compiled, own = [], plugin.compile
        with mock.patch.object(plugin, "compile", lambda own=own, kept=compiled: kept.append(own()) or kept[-1]):
            torch.manual_seed(0)
            QuantumLayer(3, 2, simulator=backend, diff_method="parameter-shift", shots=10)(torch.ones(1, 3))
        circuits.append(Operator(compiled[0].remove_final_measurements(inplace=False)))
    assert circuits[0].equiv(circuits[1])


# Prices


def test_a_processor_is_paid_by_task_and_by_shot():
    assert device("processor").price.of(100, 100 * 1000) == pytest.approx(100 * 0.30 + 100_000 * 0.0009)


def test_a_simulator_is_paid_for_three_seconds_at_least():
    assert SV1.price.of(100, seconds=0.012) == pytest.approx(100 * 3 / 60 * 0.075)
    assert SV1.price.of(2, seconds=60.0) == pytest.approx(2 * 0.075)


def test_what_runs_here_is_free():
    assert {str(device(name).price) for name in HERE} == {"free"}
    assert str(Price(per_task=0.3, per_shot=0.0009)) == "$0.3 a task + $0.0009 a shot"


@pytest.mark.parametrize("amount", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("part", ["per_task", "per_shot", "per_minute", "least_s"])
def test_a_price_is_finite_and_not_negative(part, amount):
    with pytest.raises(DeviceError, match="a price must be a finite number that is not negative"):
        Price(**{part: amount})


def test_prices_of_two_sources_are_held_against_each_other_part_by_part():
    assert Price(per_task=0.3, per_shot=0.01).or_more(Price(per_task=0.2, per_shot=0.02)) == Price(per_task=0.3, per_shot=0.02)


def test_every_price_of_the_list_has_a_source_and_a_date():
    priced = [entry.price for entry in devices.listed().values() if str(entry.price) != "free"]
    assert len(priced) == 2 and all(price.source.startswith("https://") and price.date for price in priced)


def test_the_processor_of_the_list_is_one_that_brakets_sdk_still_lists():
    from braket.devices import Devices

    assert device("processor").arn in [str(current) for current in Devices.Rigetti]
    current = [member for member in Devices.Rigetti if not member.name.startswith("_")]
    assert [str(member) for member in current] == [device("processor").arn]


# Which, and whether


def test_an_unknown_device_is_refused_with_the_names_of_all():
    with pytest.raises(DeviceError, match=r"unknown device 'sv2': choose one of statevector, .*, sv1, processor"):
        device("sv2")


@pytest.mark.parametrize("arn", ["Ankaa-3", "arn:aws:braket:us-west-1::device/qpu/rigetti", "arn:aws:s3:::bucket"])
def test_what_is_no_name_of_a_device_is_refused_with_an_example(arn):
    with pytest.raises(DeviceError, match=r"is not the ARN of a Braket device, which reads like 'arn:aws:braket:us-west-1"):
        device("processor", arn)


def test_another_processor_is_one_parameter():
    other = device("processor", "arn:aws:braket:eu-north-1::device/qpu/iqm/Garnet")
    assert (other.region, other.title) == ("eu-north-1", "qpu/iqm/Garnet")
    assert "of another device; this one is asked for its own" in str(other.price)


def test_a_processor_does_not_take_the_place_of_a_simulator():
    with pytest.raises(DeviceError, match="does not take the place of sv1, which is a quantum-simulator"):
        device("sv1", PROCESSOR)


def test_a_device_of_this_machine_has_no_arn():
    with pytest.raises(DeviceError, match=r"default\.qubit runs on this machine and has no ARN"):
        device("default.qubit", PROCESSOR)


def test_a_plugin_that_is_not_installed_is_told_with_the_command_that_installs_it():
    there = availability(devices.Device("qrack", "Qrack", "qrack.simulator", "pennylane-qrack"))
    assert there == (False, False, 'not installed: pip install "pennylane-qrack"')


def test_a_plugin_that_does_not_work_is_told_with_its_own_words():
    broken = availability(devices.Device("broken", "a device", "default.qubit.no_such", "pennylane"))
    assert (broken.installed, broken.usable) == (True, False) and "no_such" in broken.why


def test_any_device_is_all_that_can_be_used_here_and_a_named_one_is_never_replaced():
    found = dict.fromkeys(HERE, Availability(True, True)) | {"qiskit.aer": Availability(False, False, "not installed: pip")}
    assert devices.named(["any"], found) == [name for name in HERE if name != "qiskit.aer"]
    assert devices.named(["lightning.qubit", "statevector"], found) == ["statevector", "lightning.qubit"]
    with pytest.raises(DeviceError, match=r"qiskit\.aer cannot be used here: not installed: pip; leave it out, or choose any"):
        devices.named(["statevector", "qiskit.aer"], found)
    with pytest.raises(DeviceError, match="'sv1' is no device of this machine: choose any, or of statevector, "):
        devices.named(["sv1"], found)


def test_without_a_region_sv1_asks_for_one(aws):
    aws(AWS_DEFAULT_REGION="")
    assert availability(SV1) == (True, False, "no AWS region is set: set AWS_DEFAULT_REGION, e.g. to us-east-1")


@pytest.mark.parametrize("name", ["sv1", "processor"])
def test_without_credentials_a_remote_device_says_how_to_have_some(aws, name):
    aws(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert availability(device(name)).why.startswith("no AWS credentials are found: run `aws configure`")


def test_a_profile_that_is_not_there_is_told(aws):
    aws(AWS_PROFILE="nobody")
    assert availability(SV1).why.startswith("AWS_PROFILE names a profile that is not configured")


def test_without_a_network_a_remote_device_says_so(aws):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        aws(AWS_ENDPOINT_URL_BRAKET=f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert availability(SV1).why.startswith("AWS did not answer: is this machine connected to the network")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_BRAKET", "BRAKET_ENDPOINT"])
@pytest.mark.parametrize("address", ["garbage", "http://", "http://[::1", "ftp:/x", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_told(aws, variable, address):
    aws(**{variable: address})
    assert availability(SV1) == (
        True,
        False,
        f"{variable}={address!r} is no address: it reads like https://HOST:PORT, or is left out",
    )


def test_a_service_that_is_silent_is_given_up_after_seconds(aws, monkeypatch):
    assert devices.CONNECT_S + devices.READ_S < 10  # and not botocore's minutes
    monkeypatch.setattr(devices, "READ_S", 0.5)
    with serving(silent=True) as (service, variables):
        aws(**variables)
        assert availability(SV1).why.startswith("AWS did not answer")
    assert service.calls["GET braket device"] == 1  # asked once, and not again and again


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("AccessDeniedException", "these credentials may not use Braket"),
        ("UnrecognizedClientException", "these credentials are not known to AWS"),
        ("ExpiredTokenException", "these credentials have expired"),
        ("TeapotException", "AWS refused with TeapotException: user arn:aws:iam::000000000000:user/reader may not do this"),
    ],
)
def test_a_refusal_is_told_without_the_account_that_aws_names_in_it(aws, code, why):
    with serving(refused=code) as (service, variables):
        aws(**variables)
        told = availability(SV1)
    assert told.why.startswith(why) and service.account not in told.why


def test_a_processor_that_is_offline_is_not_usable(aws):
    with serving(status="OFFLINE") as (_, variables):
        aws(**variables)
        assert availability(device("processor")) == (
            True,
            False,
            "the device is OFFLINE: try again later, or give the ARN of another one",
        )


def test_a_processor_that_was_retired_is_told(aws):
    with serving() as (_, variables):
        aws(**variables)
        retired = device("processor", "arn:aws:braket:us-west-1::device/qpu/rigetti/Aspen-9")
        assert availability(retired).why == "there is no such device (any more): give the ARN of a current one"


# The command


def test_the_command_lists_every_device_with_its_availability_and_price(aws):
    aws(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    listed = CliRunner().invoke(main, ["devices"])
    assert listed.exit_code == 0
    lines = listed.output.splitlines()
    assert [line.split()[0] for line in lines[::3]] == list(devices.listed())
    assert [line.strip() for line in lines[1::3]][: len(HERE)] == ["usable"] * len(HERE)
    assert lines[-2].strip().startswith("not usable: no AWS credentials")
    assert lines[-1].strip() == (
        "$0.3 a task + $0.0009 a shot (as its retired predecessor, Ankaa-3; not known for this one until it is asked); "
        "a training step of 100 circuits with 1,000 shots: $120.00"
    )


def test_the_command_takes_another_processor_and_refuses_what_is_none(aws):
    with serving() as (_, variables):
        aws(**variables)
        shown = CliRunner().invoke(main, ["devices", "--arn", "arn:aws:braket:us-west-1::device/qpu/rigetti/Aspen-9"])
        assert "qpu/rigetti/Aspen-9" in shown.output and "there is no such device (any more)" in shown.output
    refused = CliRunner().invoke(main, ["devices", "--arn", "Aspen-9"])
    assert refused.exit_code == 1 and "'Aspen-9' is not the ARN of a Braket device" in refused.output
