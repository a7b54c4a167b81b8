"""What remote circuits may cost and what is kept of them, end to end: PennyLane, Braket's plugin and SDK, boto3, real HTTP."""

import json
import os
import re
import signal
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from unittest import mock

import boto3
import pennylane as qml
import pytest
import torch
from botocore.config import Config
from botocore.loaders import JSONFileLoader
from braket.aws import AwsDevice, AwsQuantumTask, AwsSession
from braket.circuits import Circuit, Observable
from braket.tracking import Tracker

from hqnn_utils.hardware import devices, paid, session
from hqnn_utils.hardware.budget import Budget, BudgetError
from hqnn_utils.hardware.devices import DeviceError
from hqnn_utils.hardware.emulator import serving
from hqnn_utils.hardware.ledger import Record
from hqnn_utils.hardware.paid import PaidRun, within_budget
from hqnn_utils.hardware.payments import Payments
from hqnn_utils.notebooks import parameters, runs
from hqnn_utils.quantum.layers import QuantumLayer

CIRCUITS = 9  # of a layer with 2 qubits and depth 1, for one row: its value, and two shifts of four angles
SV1, PROCESSOR = devices.device("sv1"), devices.device("processor")
TASK = {"sv1": SV1.price.of(1), "processor": PROCESSOR.price.of(1, PROCESSOR.shots)}


@pytest.fixture(autouse=True, scope="module")
def quick_clients():
    """botocore reads its tables anew for every session, which takes a third of a second; here, once."""
    load = JSONFileLoader.load_file
    tables = cache(lambda path: load(JSONFileLoader(), path))
    with mock.patch.object(JSONFileLoader, "load_file", lambda self, path: tables(path)):
        yield


@contextmanager
def cloud(**settings):
    """The service, and this process its client; nothing else of AWS is left in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with serving(**settings) as (service, variables), mock.patch.dict(os.environ, kept | variables, clear=True):
        yield service


@pytest.fixture
def record(tmp_path) -> Path:
    return tmp_path / "run" / "tasks.jsonl"


def budget(device, record: Path, **changed) -> AbstractContextManager[PaidRun]:
    return within_budget(device, **dict(circuits=CIRCUITS, batches=2, usd=100.0, record=record, paid=True) | changed)


def gradients(device, open_budget: PaidRun | None, start: float = 0.3, shots: int | None = None, **options) -> torch.Tensor:
    """Gradients of a small layer, for its input and weights; without a budget by our own engine."""
    simulator = "statevector"
    if open_budget is not None:
        fast = dict(poll_interval_seconds=0.01, max_parallel=4, max_retries=1) | options
        simulator = devices.connect(device, 2, run=open_budget, **fast)
    shots = (device.shots if shots is None else shots) if open_budget else 0
    layer = QuantumLayer(2, 1, simulator=simulator, diff_method="parameter-shift", shots=shots)
    layer.theta.data = torch.tensor([[start, -0.7]])
    x = torch.tensor([[0.5, 1.1]], requires_grad=True)
    layer(x).sum().backward()
    return torch.cat([x.grad.flatten(), layer.theta.grad.flatten()])


def test_a_task_that_ends_while_its_place_in_the_queue_is_asked_for_has_none(record):
    with cloud(), budget(SV1, record) as open_budget:
        gradients(SV1, open_budget)
        task = AwsQuantumTask(open_budget.session.arn(next(iter(open_budget.payments.record.tasks))), open_budget.session)
        assert task.queue_position().queue_position is None


def spent_in(record: Path) -> float:
    return sum(task.usd or 0.0 for task in Record(record).tasks.values())


@pytest.mark.parametrize(("device", "tolerance"), [(SV1, 1e-5), (PROCESSOR, 0.15)], ids=["sv1", "processor"])
def test_a_layer_learns_on_a_remote_device_what_it_learns_here(device, tolerance, record):
    with cloud(queue_s=0.1) as service, budget(device, record) as open_budget:
        found = gradients(device, open_budget)
    torch.testing.assert_close(found, gradients(device, None), rtol=0, atol=tolerance)
    assert len(service.tasks) == open_budget.payments.sent == CIRCUITS
    assert open_budget.payments.found == 0


def test_a_device_that_takes_program_sets_is_paid_two_tasks_a_step(record):
    with cloud(program_sets=True) as service, budget(PROCESSOR, record) as open_budget:
        found = gradients(PROCESSOR, open_budget)
    torch.testing.assert_close(found, gradients(PROCESSOR, None), rtol=0, atol=0.15)
    assert len(service.tasks) == open_budget.estimate.tasks == 2
    assert spent_in(record) == pytest.approx(PROCESSOR.price.of(2, CIRCUITS * PROCESSOR.shots))
    assert open_budget.estimate.usd == pytest.approx(spent_in(record))


@pytest.mark.parametrize("device", [SV1, PROCESSOR], ids=["sv1", "processor"])
def test_our_count_of_money_is_that_of_brakets_own_tracker(device, record):
    with cloud(simulated_s=7.5) as service, Tracker() as tracker, budget(device, record) as open_budget:
        gradients(device, open_budget)
        tracked = float(tracker.qpu_tasks_cost() + tracker.simulator_tasks_cost())
    assert tracked == pytest.approx(spent_in(record)) == service.usd and tracked > 0
    if device is SV1:  # billed as long as it ran, which is more than the least
        assert tracked == pytest.approx(CIRCUITS * 7.5 / 60 * 0.075)


# Nothing paid by default


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"paid": False},
            r"costs money \(\$0\.075 a minute, at least 3 s a task\): set paid=True, and a sum, .* got paid=False",
        ),
        ({"paid": "False"}, r"set paid=True, .* got paid='False'"),
        ({"paid": "True"}, r"set paid=True, .* got paid='True'"),
        ({"paid": 1}, r"set paid=True, .* got paid=1"),
        ({"usd": 0.0}, r"set a sum above \$0 that has an end, got 0\.0"),
        ({"usd": float("nan")}, r"set a sum above \$0 that has an end, got nan"),
        ({"usd": float("inf")}, r"set a sum above \$0 that has an end, got inf"),
        ({"usd": -1.0}, r"set a sum above \$0 that has an end, got -1\.0"),
        ({"circuits": 0}, r"got circuits=0, batches=2"),
        ({"shots": -1}, r"shots=-1"),
        ({"simulation_s": float("nan")}, r"simulation_s=nan"),
        ({"simulation_s": 60.0}, r"9 circuits in 9 tasks for about \$0\.67 would exceed"),
        (
            {"usd": 0.01},
            r"9 circuits in 9 tasks for about \$0\.03 would exceed the budget of \$0\.01; nothing was sent",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{value}",
)
def test_nothing_is_sent_without_a_flag_and_a_budget_that_suffices(changed, why, record):
    with cloud() as service, pytest.raises(BudgetError, match=why), budget(SV1, record, **{"usd": 0.5} | changed):
        pytest.fail("the budget opened")
    assert not service.tasks and "POST braket quantum-task" not in service.calls


def test_nothing_is_asked_of_aws_without_the_flag(record):
    with cloud() as service, pytest.raises(BudgetError), budget(SV1, record, paid=False):
        pytest.fail("the budget opened")
    assert not service.calls and not record.exists()


def test_nothing_is_sent_without_credentials(record):
    with cloud() as service, mock.patch.dict(os.environ):
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        with pytest.raises(DeviceError, match="sv1 cannot be used: no AWS credentials"), budget(SV1, record):
            pytest.fail("the budget opened")
    assert not service.calls


def test_the_device_itself_says_what_a_shot_costs(record):
    with cloud() as service:
        service.devices[PROCESSOR.arn][-1]["service"]["deviceCost"]["price"] = 1.0
        # Higher than our list's and than Amazon's, and so believed; a lower one would not be.
        why = r"9 circuits of 1,000 shots in 9 tasks for about \$9002\.70"
        with pytest.raises(BudgetError, match=why), budget(PROCESSOR, record):
            pytest.fail("the budget opened")


def test_a_device_of_a_budget_sends_nothing_once_the_budget_is_closed(record):
    with cloud() as service:
        with budget(SV1, record) as open_budget:
            backend = devices.connect(SV1, 2, run=open_budget, poll_interval_seconds=0.01)
        with pytest.raises(BudgetError, match="closed"):
            QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift")(torch.zeros(1, 2))
    assert not service.tasks


def test_nothing_remote_is_opened_without_a_budget():
    with pytest.raises(DeviceError, match=r"sv1 may cost money: open it with `paid\.within_budget`"):
        devices.connect(SV1, 2)


@pytest.mark.parametrize("told", [dict(price=float("nan"), unit="shot"), dict(price=-1.0, unit="shot")], ids=str)
def test_a_price_that_is_none_opens_nothing(told, record):
    with cloud() as service:
        service.devices[PROCESSOR.arn][-1]["service"]["deviceCost"] = told
        with pytest.raises(DeviceError, match="a price must be a finite number"), budget(PROCESSOR, record):
            pytest.fail("the budget opened")


def test_a_device_that_bills_by_something_else_is_refused(record):
    with cloud() as service:
        service.devices[PROCESSOR.arn][-1]["service"]["deviceCost"] = dict(price=10.0, unit="hour")
        with pytest.raises(DeviceError, match="bills by the hour, for which no budget"), budget(PROCESSOR, record):
            pytest.fail("the budget opened")


# Not around it


@pytest.mark.parametrize(
    "around",
    [
        lambda within: qml.device("braket.aws.qubit", device_arn=SV1.arn, wires=2),
        lambda within: qml.device("braket.aws.qubit", device_arn=PROCESSOR.arn, wires=2, aws_session=within.session),
        lambda within: AwsDevice(SV1.arn),
        lambda within: AwsDevice(SV1.arn, aws_session=AwsSession(boto3.Session(region_name="us-west-2"))),
        lambda within: AwsDevice(PROCESSOR.arn, aws_session=within.session),
        lambda within: AwsDevice(SV1.arn, aws_session=AwsSession.copy_session(within.session, "us-west-2")),
        lambda within: AwsDevice(SV1.arn, aws_session=AwsSession(braket_client=within.session.braket_client)),
    ],
    ids=["plugin", "plugin, another device", "SDK", "SDK, region", "SDK, another device", "copy, region", "client of ours"],
)
def test_nothing_is_sent_around_an_open_budget(around, record):
    with cloud() as service, budget(SV1, record) as within:
        device = around(within)
        with pytest.raises(BudgetError, match=r"nothing can be sent from this budget: it is for|nothing is sent to Braket"):
            if isinstance(device, AwsDevice):
                device.run(Circuit().h(0).expectation(Observable.Z(), 0), shots=1000 if "qpu" in device.arn else 0)
            else:
                QuantumLayer(2, 1, simulator=device, diff_method="parameter-shift")(torch.zeros(1, 2))
        assert not service.tasks


def test_another_device_of_the_same_region_is_not_paid_from_a_budget(record):
    other = {"deviceArn": SV1.arn.replace("sv1", "dm1"), "action": json.dumps(PROGRAM), "shots": 0}
    with cloud(), budget(SV1, record) as within, pytest.raises(BudgetError, match=r"it is for arn:.*/sv1, not for arn:.*/dm1"):
        within.session.create_quantum_task(**other)


@pytest.mark.parametrize("operation", ["create_quantum_task", "create_job"])
def test_a_client_of_ones_own_sends_nothing(operation):
    client = boto3.client("braket", region_name="us-east-1")
    with cloud() as service, pytest.raises(BudgetError, match="nothing is sent to Braket in this process but from an open"):
        getattr(client, operation)()
    assert not service.calls


@pytest.mark.parametrize("option", ["aws_session", "session", "device_arn", "shots"])
def test_options_do_not_replace_what_is_the_budgets(option, record):
    with cloud(), budget(SV1, record) as within, pytest.raises(DeviceError, match=f"{option} cannot be set here"):
        devices.connect(SV1, 2, run=within, **{option: PROCESSOR.arn})


def test_a_budget_opens_its_own_device_only(record):
    with cloud(), budget(SV1, record) as within, pytest.raises(DeviceError, match="is for sv1, not for processor"):
        devices.connect(PROCESSOR, 2, run=within)


def test_forked_children_send_nothing(record):
    with cloud() as service, budget(SV1, record) as within:
        backend = devices.connect(SV1, 2, run=within, poll_interval_seconds=0.01)
        layer = QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift")
        said, say = os.pipe()
        if not (child := os.fork()):
            signal.alarm(30)  # should it send after all, and wait for threads that were not forked
            try:
                layer(torch.zeros(1, 2))
            except BudgetError as error:
                os.write(say, str(error).encode())
            os._exit(0)
        os.close(say)
        os.waitpid(child, 0)
        assert b"this process was forked from the one that opened it" in os.read(said, 1000)
        assert not service.tasks
        layer(torch.zeros(1, 2))  # and here everything is as it was
        assert len(service.tasks) == 1 and spent_in(record) == pytest.approx(TASK["sv1"])


def test_a_kernel_whose_program_was_killed_sends_nothing(record, monkeypatch):
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getppid()))  # as Jupyter tells a kernel
    with cloud() as service, budget(SV1, record) as within, pytest.raises(BudgetError, match="ran this notebook is gone"):
        monkeypatch.setattr(os, "getppid", lambda: 1)
        gradients(SV1, within)
    assert not service.tasks


def test_a_budget_whose_lock_was_removed_sends_nothing(record):
    with cloud() as service, budget(SV1, record) as within, pytest.raises(BudgetError, match=r"lock of .* was removed"):
        record.with_suffix(".lock").unlink()
        gradients(SV1, within)
    assert not service.tasks


def test_a_long_simulation_counts_as_soon_as_it_has_ended(record):
    long = SV1.price.of(1, seconds=600.0)
    with cloud(simulated_s=600.0) as service:
        with pytest.raises(BudgetError, match="stopped before the budget"), budget(SV1, record, usd=2.5 * long) as within:
            gradients(SV1, within, parallel=False)
        assert len(service.tasks) == 2 and spent_in(record) == pytest.approx(service.usd) == pytest.approx(2 * long)


# What will be sent


@pytest.mark.parametrize("shots", [0, 100, 10_000])
@pytest.mark.parametrize("program_sets", [False, True])
def test_a_layer_measures_as_often_as_was_estimated_or_nothing_is_sent(shots, program_sets, record):
    asked = (
        rf"it is for 1,000 shots a circuit, and the layer asks for {shots:,} shots.*: give both the same\. Nothing was sent"
    )
    with cloud(program_sets=program_sets) as service, pytest.raises(BudgetError, match=asked), budget(PROCESSOR, record) as b:
        gradients(PROCESSOR, b, shots=shots)
    assert not service.tasks


def test_the_estimate_is_of_the_shots_that_the_layer_takes(record):
    price = PROCESSOR.price.of(CIRCUITS, CIRCUITS * 100)
    with cloud() as service, budget(PROCESSOR, record, shots=100) as within:
        assert within.estimate.usd == pytest.approx(price)
        gradients(PROCESSOR, within, shots=100)
    assert spent_in(record) == pytest.approx(price) == pytest.approx(service.usd)


@pytest.mark.parametrize(("device", "shots"), [(PROCESSOR, 0), (PROCESSOR, 5), (PROCESSOR, 8192), (SV1, 10**6)])
def test_shots_that_the_device_does_not_take_are_refused_with_its_range(device, shots, record):
    ranges = {"sv1": "0 to 100,000", "processor": "10 to 5,000"}
    why = rf"takes {ranges[device.name]} shots a circuit, got {shots:,}.*; nothing was sent"
    with cloud(most_shots=5000) as service, pytest.raises(DeviceError, match=why), budget(device, record, shots=shots):
        pytest.fail("the budget opened")
    assert not service.tasks


@pytest.mark.parametrize(("executables", "total", "tasks"), [(100, 10**6, 2), (3, 10**6, 4), (100, 3000, 4), (1, 10**6, 9)])
def test_sets_of_circuits_are_as_many_as_the_device_takes_and_were_estimated(executables, total, tasks, record):
    with cloud(program_sets=True, executables=executables) as service:
        service.devices[PROCESSOR.arn][-1]["action"][session.PROGRAM_SET]["maximumTotalShots"] = total
        with budget(PROCESSOR, record) as within:
            gradients(PROCESSOR, within)
        assert within.estimate.tasks == len(service.tasks) == within.payments.sent == tasks
        assert within.estimate.usd == pytest.approx(spent_in(record)) == pytest.approx(service.usd)
        assert all(int(task.request["shots"]) <= total for task in service.tasks.values())


def test_other_circuits_of_a_record_are_not_taken_for_this_runs(record):
    price = CIRCUITS * TASK["processor"]
    with cloud() as service:
        with budget(PROCESSOR, record, run="first") as within:
            gradients(PROCESSOR, within)
        with budget(PROCESSOR, record) as within:
            assert (within.estimate.tasks, within.estimate.usd) == (CIRCUITS, pytest.approx(price))
        for other in (dict(run="second"), dict(run="first", shots=100, circuits=60, batches=1)):
            with (
                pytest.raises(BudgetError, match=r"\$10\.80 were spent before.* would exceed"),
                budget(PROCESSOR, record, usd=1.9 * price, **other),
            ):
                pytest.fail("the budget opened")
        with budget(PROCESSOR, record, run="first", usd=price) as within:  # the same again costs nothing
            gradients(PROCESSOR, within)
        assert len(service.tasks) == within.payments.found == CIRCUITS


# Stopped in the middle, and gone on with


@pytest.mark.parametrize("parallel", [True, False])
def test_a_run_stops_before_its_budget_is_passed_and_goes_on_with_a_larger_one(parallel, record):
    limit = 5.5 * TASK["processor"]
    with cloud() as service:
        # An estimate for fewer circuits than are then sent: what a loop of unknown length comes to.
        with (
            pytest.raises(
                BudgetError, match=r"stopped before the budget of \$6\.60 was passed.*5 tasks and 5 results are kept"
            ),
            budget(PROCESSOR, record, circuits=5, usd=limit) as open_budget,
        ):
            gradients(PROCESSOR, open_budget, parallel=parallel)
        assert len(service.tasks) == 5 and spent_in(record) <= limit
        with budget(PROCESSOR, record, usd=2 * limit) as open_budget:
            gradients(PROCESSOR, open_budget)
        assert (open_budget.payments.found, open_budget.payments.sent) == (5, CIRCUITS - 5)
        assert len(service.tasks) == CIRCUITS
    assert spent_in(record) == pytest.approx(CIRCUITS * TASK["processor"])


def test_what_earlier_runs_spent_counts_against_the_budget(record):
    with cloud() as service:
        with budget(SV1, record) as open_budget:
            gradients(SV1, open_budget)
        spent = spent_in(record)
        why = rf"18 circuits in 18 tasks for about \$0\.07; \${spent:.2f} were spent before, .* would exceed"
        with pytest.raises(BudgetError, match=why), budget(SV1, record, circuits=2 * CIRCUITS, usd=1.5 * spent):
            pytest.fail("the budget opened")
    assert len(service.tasks) == CIRCUITS


def test_a_finished_run_is_repeated_from_its_record_alone(record):
    with cloud(), budget(PROCESSOR, record) as open_budget:
        first = gradients(PROCESSOR, open_budget)
    with cloud() as another:  # knows nothing of the tasks
        with budget(PROCESSOR, record, usd=CIRCUITS * TASK["processor"] + 0.01) as open_budget:
            again = gradients(PROCESSOR, open_budget)
        assert not another.tasks
    assert torch.equal(first, again)


def test_the_same_circuit_asked_for_twice_with_shots_is_measured_twice(record):
    with cloud() as service, budget(PROCESSOR, record, circuits=2 * CIRCUITS) as open_budget:
        first, second = (gradients(PROCESSOR, open_budget) for _ in range(2))
    assert len(service.tasks) == 2 * CIRCUITS and not torch.equal(first, second)
    with cloud() as service, budget(PROCESSOR, record, circuits=2 * CIRCUITS) as open_budget:
        third, fourth = (gradients(PROCESSOR, open_budget) for _ in range(2))
        assert not service.tasks
    assert torch.equal(first, third) and torch.equal(second, fourth)


def test_a_run_that_is_killed_pays_for_nothing_twice(record, monkeypatch):
    with cloud(sv1_s=0.2) as service:
        with pytest.raises(KeyboardInterrupt), budget(SV1, record) as open_budget:
            keep, kept = open_budget.payments.record.keep, []

            def killed(id, result, **fields):
                keep(id, result, **fields)
                kept.append(id)
                if len(kept) == 3:
                    raise KeyboardInterrupt

            monkeypatch.setattr(open_budget.payments.record, "keep", killed)
            gradients(SV1, open_budget, parallel=False)
        sent = len(service.tasks)
        assert 3 <= sent < CIRCUITS
        with budget(SV1, record) as open_budget:
            found = gradients(SV1, open_budget)
        assert len(service.tasks) == CIRCUITS and open_budget.payments.found == sent
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)


def test_two_runs_can_not_use_one_record_at_once(record, monkeypatch):
    monkeypatch.setattr(paid, "LOCK_S", 0.1)
    with cloud(), budget(SV1, record):
        second = budget(SV1, record)
        with pytest.raises(DeviceError, match=r"another run is using .*tasks\.jsonl: wait for it"):
            second.__enter__()


def test_a_line_that_was_cut_off_is_left_out_and_its_task_found_again(record):
    with cloud() as service:
        with budget(SV1, record) as open_budget:
            gradients(SV1, open_budget)
        lines = record.read_text().splitlines()
        sent = [number for number, line in enumerate(lines) if '"CREATED"' in line]
        record.write_text("\n".join([*lines[: sent[-1]], lines[sent[-1]][:40]]))
        for result in record.with_suffix("").iterdir():
            result.unlink()
        with budget(SV1, record) as open_budget:
            gradients(SV1, open_budget)
        assert open_budget.payments.sent == 1  # asked anew, with the same token
        assert len(service.tasks) == CIRCUITS
    assert len(Record(record).tasks) == CIRCUITS


def test_the_same_circuit_on_its_way_twice_is_two_tasks(record):
    kept, tokens = Record(record), []
    payments = Payments(kept, Budget(100.0, PROCESSOR.price, 1000, kept.tasks), "")

    def send(token):
        tokens.append(token)
        if len(tokens) == 1:  # and before the first is answered, another thread asks
            payments.once("same", 1, "us-west-1", send)
        return f"{len(tokens)}-{token[:8]}"

    payments.once("same", 1, "us-west-1", send)
    assert len(set(tokens)) == payments.sent == len(Record(record).tasks) == 2


def test_a_full_disk_is_told_and_nothing_is_paid_twice(record, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with cloud() as service:
        with (
            pytest.raises(DeviceError, match=r"tasks\.jsonl cannot be written: No space left on device\. "),
            budget(SV1, record) as within,
        ):
            monkeypatch.setattr(within.payments.record, "add", full)
            gradients(SV1, within, parallel=False)
        assert len(service.tasks) == 1
        with budget(SV1, record) as within:
            gradients(SV1, within)
        assert len(service.tasks) == CIRCUITS


@pytest.mark.parametrize("damage", [b"", b'{"other": "result"}'], ids=str)
def test_a_result_that_is_not_whole_is_fetched_again(damage, record):
    with cloud() as service:
        with budget(SV1, record) as within:
            first = gradients(SV1, within)
        for result in list(record.with_suffix("").iterdir())[:4]:
            result.write_bytes(damage)
        with budget(SV1, record) as within:
            assert torch.equal(gradients(SV1, within), first)
        assert (within.payments.found, len(service.tasks)) == (CIRCUITS, CIRCUITS)
    assert all(Record(record).result(id) for id in Record(record).tasks)


def test_a_kill_between_a_result_and_its_price_leaves_the_right_price(record):
    with cloud(simulated_s=90.0) as service:
        with budget(SV1, record) as within:
            gradients(SV1, within)
        lines = record.read_text().splitlines()
        sent = [re.sub('"usd": [^,}]*', '"usd": 5.0', line) for line in lines if '"COMPLETED"' not in line]
        record.write_text("\n".join(sent) + "\n")
        assert spent_in(record) == 5.0 * CIRCUITS
        with budget(SV1, record) as within:
            assert within.payments.usd == pytest.approx(service.usd)


def test_a_record_knows_its_region_on_another_day(record, monkeypatch):
    with cloud() as service:
        with budget(SV1, record) as within:
            gradients(SV1, within)
        for result in record.with_suffix("").iterdir():
            result.unlink()  # so that the service has to be asked
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
        with budget(SV1, record) as within:
            gradients(SV1, within)
        assert within.payments.found == len(service.tasks) == CIRCUITS


PROGRAM = {
    "braketSchemaHeader": {"name": "braket.ir.openqasm.program", "version": "1"},
    "source": "OPENQASM 3.0;\ninput float p_0;\ninput float p_1;\nqubit[2] q;\nry(p_0) q[0];\nry(p_1) q[1];",
    "inputs": {"p_0": 0.1, "p_1": 0.2},
}


def key(program: dict, **changed) -> str:
    request = {"deviceArn": SV1.arn, "shots": 0, "deviceParameters": '{"a": 1, "b": {"c": 2, "d": 3}}', "outputS3Bucket": "x"}
    return session.identity(session.canonical(request | {"action": json.dumps(program)} | changed))


def test_a_request_is_the_same_in_whatever_order_a_process_writes_it():
    lines = PROGRAM["source"].split("\n")
    turned = "\n".join([lines[0], lines[2], lines[1], *lines[3:]])
    same = {"inputs": {"p_1": 0.2, "p_0": 0.1}, "source": turned, "braketSchemaHeader": PROGRAM["braketSchemaHeader"]}
    arranged = '{"b": {"d": 3, "c": 2}, "a": 1}'
    assert key(same, deviceParameters=arranged, outputS3Bucket="y", clientToken="z") == key(PROGRAM)
    sets = [{"braketSchemaHeader": {"name": session.PROGRAM_SET}, "programs": [one, one]} for one in (PROGRAM, same)]
    assert key(sets[0]) == key(sets[1]) != key(PROGRAM)
    assert session.executables(json.dumps(sets[0] | {"programs": [{"inputs": {"p": [1, 2, 3]}}, {"inputs": {}}, {}]})) == 5


@pytest.mark.parametrize(
    "changed",
    [
        {"source": PROGRAM["source"].replace("ry(p_0) q[0];\nry(p_1) q[1];", "ry(p_1) q[1];\nry(p_0) q[0];")},
        {"source": PROGRAM["source"].replace("ry", "rx")},
        {"inputs": {"p_0": 0.2, "p_1": 0.1}},
        {"inputs": {"p_0": 0.1, "p_1": 0.2 + 1e-15}},
    ],
    ids=["order of gates", "gate", "inputs exchanged", "last digit"],
)
def test_a_request_that_means_something_else_is_another_one(changed):
    assert key(PROGRAM | changed) != key(PROGRAM)
    others = [{}, dict(shots=10), dict(deviceArn=PROCESSOR.arn), dict(deviceParameters="{}")]
    assert len({key(PROGRAM, **other) for other in others}) == 4


def test_six_threads_stop_exactly_at_the_budget(record):
    kept = Record(record)
    payments = Payments(kept, Budget(5.5 * TASK["sv1"], SV1.price, 0, kept.tasks), "")

    def send(token):
        time.sleep(0.01)
        return token[:20]

    def ask(number):
        with suppress(BudgetError):
            return payments.once(f"circuit {number}", 1, "us-east-1", send)

    with ThreadPoolExecutor(6) as threads:
        sent = list(threads.map(ask, range(24)))
    assert sum(id is not None for id in sent) == payments.sent == 5
    assert spent_in(record) == pytest.approx(5 * TASK["sv1"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("paid", value) for value in ("True", "False", "yes", 1, 1.0, None, [True])),
        *(("budget_usd", value) for value in (float("nan"), float("inf"), -1.0, "5", True, 1e9)),
    ],
)
def test_the_chapter_refuses_what_is_no_consent_and_no_sum(name, value):
    with pytest.raises(parameters.ParameterError, match=f"parameter {name} = .* refused"):
        parameters.of(runs.find("device_costs"))[name].check(value)


@pytest.mark.parametrize("name", ["tasks", "tasks.txt", "../tasks.jsonl", "a/../../tasks.jsonl"])
def test_a_record_stays_in_its_folder(name, record):
    with cloud() as service, pytest.raises(DeviceError, match=r"a record is a file NAME\.jsonl"):
        budget(SV1, record.parent / name).__enter__()
    assert not service.tasks and not [
        file for file in record.parent.parent.rglob("*") if file.suffix != ".lock" and file.is_file()
    ]


# Accidents


@pytest.mark.parametrize("parallel", [True, False])
def test_a_queue_that_outlasts_the_wait_is_left_and_not_paid_again(parallel, record):
    with cloud(queue_s=60.0) as service:
        with (
            pytest.raises(DeviceError, match=r"task [0-9a-f-]{36} is still QUEUED: run again later.* tasks and 0 results"),
            budget(PROCESSOR, record) as within,
        ):
            gradients(PROCESSOR, within, parallel=parallel, poll_timeout_seconds=0.3, max_retries=3)
        queued = len(service.tasks)
        assert queued <= CIRCUITS and spent_in(record) == pytest.approx(queued * TASK["processor"])
        for task in service.tasks.values():
            task.starts = task.ends = 0.0
        service.settings.queue_s = 0.0
        with budget(PROCESSOR, record) as within:
            gradients(PROCESSOR, within)
        assert within.payments.found == queued and len(service.tasks) == CIRCUITS


def test_the_reason_of_a_refusal_is_told_without_the_account(record, capfd):
    refusal = "Shot count should be between 100 and 5000"
    why = rf"Braket refused with ValidationException: {refusal}, asked for by arn:aws:iam::0{{12}}:user/reader\. Nothing"
    with cloud(invalid=refusal) as service, pytest.raises(DeviceError, match=why) as told, budget(PROCESSOR, record) as within:
        gradients(PROCESSOR, within)
    assert not service.tasks
    assert service.account not in "".join([*traceback.format_exception(told.value), *capfd.readouterr()])


@pytest.mark.parametrize("service", ["", "_BRAKET", "_S3", "_STS"])
@pytest.mark.parametrize("address", ["garbage", "http://", "http://[::1", "ftp:/x", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_told_before_anything_is_sent(service, address, record):
    with cloud() as there, mock.patch.dict(os.environ, {f"AWS_ENDPOINT_URL{service}": address}):
        if not service:
            for name in ("BRAKET", "S3", "STS"):
                del os.environ[f"AWS_ENDPOINT_URL_{name}"]
        with pytest.raises(DeviceError, match=f"AWS_ENDPOINT_URL{service}=.* is no address"), budget(SV1, record):
            pytest.fail("the budget opened")
    assert not there.calls


@pytest.mark.parametrize("parallel", [True, False])
def test_a_task_that_fails_is_told_with_its_reason_and_not_billed(parallel, record):
    with cloud(failed=[2, *range(9, 40)]) as service:  # and whatever is tried in its place
        with (
            pytest.raises(DeviceError, match=r"FAILED \(the device of account 0{12} lost its calibration\).* are kept in"),
            budget(PROCESSOR, record, circuits=3) as open_budget,
        ):
            gradients(PROCESSOR, open_budget, parallel=parallel)
        done = sum(service.status(task)[0] == "COMPLETED" for task in service.tasks.values())
        assert spent_in(record) == pytest.approx(done * TASK["processor"])
        service.settings.failed = []
        with budget(PROCESSOR, record) as open_budget:
            found = gradients(PROCESSOR, open_budget)
        assert open_budget.payments.found == done
    torch.testing.assert_close(found, gradients(PROCESSOR, None), rtol=0, atol=0.15)


def test_a_task_that_fails_once_is_tried_again(record):
    with cloud(failed=[4]) as service, budget(SV1, record) as open_budget:
        found = gradients(SV1, open_budget)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert len(service.tasks) == CIRCUITS + 1
    assert spent_in(record) == pytest.approx(CIRCUITS * TASK["sv1"])


@pytest.mark.parametrize("parallel", [True, False])
def test_a_task_that_someone_cancelled_is_not_sent_again_by_itself(parallel, record):
    with cloud(cancelled=[1]) as service:
        with (
            pytest.raises(DeviceError, match=r"task [0-9a-f-]{36} was CANCELLED, by someone with access to this account\. "),
            budget(SV1, record) as open_budget,
        ):
            gradients(SV1, open_budget, parallel=parallel)
        assert 2 <= len(service.tasks) <= CIRCUITS
        service.settings.cancelled = []
        with budget(SV1, record) as open_budget:
            gradients(SV1, open_budget)
        assert len(service.tasks) == CIRCUITS + 1


def test_throttled_requests_are_repeated_and_paid_once(record):
    with cloud(throttled=3) as service, budget(SV1, record) as open_budget:
        found = gradients(SV1, open_budget)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert service.calls["POST braket quantum-task"] == CIRCUITS + 3
    assert len(service.tasks) == open_budget.payments.sent == CIRCUITS


def test_a_lost_answer_is_asked_for_again_and_paid_once(record):
    with cloud(unanswered=[0, 5]) as service, budget(SV1, record) as open_budget:
        found = gradients(SV1, open_budget)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert service.calls["POST braket quantum-task"] == CIRCUITS + 2
    assert len(service.tasks) == CIRCUITS


@pytest.mark.parametrize("parallel", [True, False])
def test_a_connection_that_is_lost_loses_nothing(parallel, record, monkeypatch):
    hasty = session.PATIENCE.merge(Config(retries={"total_max_attempts": 2, "mode": "standard"}))
    monkeypatch.setattr(session, "PATIENCE", hasty)
    with cloud(sv1_s=0.1) as service:
        with (
            pytest.raises(DeviceError, match=r"the connection to Braket was lost.* are kept in .*tasks\.jsonl"),
            budget(SV1, record) as open_budget,
        ):
            add = open_budget.payments.record.add

            def then_gone(task):
                add(task)
                service.settings.gone = len(open_budget.payments.record.tasks) >= 4

            monkeypatch.setattr(open_budget.payments.record, "add", then_gone)
            gradients(SV1, open_budget, parallel=parallel)
        service.settings.gone = False
        assert 4 <= len(service.tasks) < CIRCUITS
        with budget(SV1, record) as open_budget:
            found = gradients(SV1, open_budget)
        assert len(service.tasks) == CIRCUITS
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)


def test_a_result_that_is_not_in_s3_is_told_and_fetched_when_it_is(record):
    with cloud(lost=[3]) as service:
        with (
            pytest.raises(DeviceError, match=r"task [0-9a-f-]{36} is COMPLETED, but its result is not in S3"),
            budget(SV1, record) as open_budget,
        ):
            gradients(SV1, open_budget)
        sent = len(service.tasks)
        service.settings.lost = []
        with budget(SV1, record) as open_budget:
            gradients(SV1, open_budget)
        assert open_budget.payments.found == sent and len(service.tasks) == CIRCUITS


def test_a_processor_that_goes_offline_is_told(record):
    with (
        cloud() as service,
        pytest.raises(DeviceError, match=r"Braket refused with DeviceOfflineException: no\. "),
        budget(PROCESSOR, record) as open_budget,
    ):
        backend = devices.connect(PROCESSOR, 2, run=open_budget)
        *known, _, properties = service.devices[PROCESSOR.arn]
        service.devices[PROCESSOR.arn] = (*known, "OFFLINE", properties)
        QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift", shots=1000)(torch.zeros(1, 2))


def test_a_price_list_that_can_not_be_had_leaves_the_other_prices(record, monkeypatch):
    with cloud(), monkeypatch.context() as patched:
        patched.setattr(session, "price_search", lambda **_: [][0])
        with budget(PROCESSOR, record) as open_budget:
            gradients(PROCESSOR, open_budget)
        assert open_budget.payments.usd == pytest.approx(CIRCUITS * TASK["processor"])


# Nobody's account


def test_neither_account_nor_bucket_nor_key_is_written_down(record, capfd):
    with cloud(failed=[1]) as service, Tracker() as tracker, budget(SV1, record) as open_budget:
        gradients(SV1, open_budget)
        print(
            tracker.tracked_resources(),
            open_budget.estimate,
            devices.availability(SV1),
            repr(open_budget.payments.record.tasks),
        )
    written = [path.read_text() for path in record.parent.rglob("*") if path.is_file()]
    shown = "\n".join([*written, *capfd.readouterr()])
    assert len(written) > CIRCUITS and json.loads(record.read_text().splitlines()[1])["id"] in shown
    buckets = {task.request["outputS3Bucket"] for task in service.tasks.values()}
    for secret in {service.account, "emulated", *buckets}:
        assert secret not in shown
    assert set(re.findall(r"(?<![\w.-])\d{12}(?![\w.-])", shown)) <= {"0" * 12}
