"""What remote circuits may cost and what is kept of them, end to end: PennyLane, Braket's plugin and SDK, boto3, real HTTP."""

import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from botocore.config import Config
from braket.tracking.tracking_context import broadcast_event
from braket.tracking.tracking_events import _TaskCreationEvent
from braket_service import serving

from hqnn_utils import devices, spending
from hqnn_utils.devices import DeviceError
from hqnn_utils.layers import QuantumLayer
from hqnn_utils.ledger import Record
from hqnn_utils.spending import BudgetError, Purse

CIRCUITS = 9  # of a layer with 2 qubits and depth 1, for one row: its value, and two shifts of four angles
SV1, PROCESSOR = devices.device("sv1"), devices.device("processor")
TASK = {"sv1": SV1.price.of(1), "processor": PROCESSOR.price.of(1, PROCESSOR.shots)}


@contextmanager
def cloud(**settings):
    """The service, and this process its client; nothing else of AWS is left in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with serving(**settings) as (service, variables), mock.patch.dict(os.environ, kept | variables, clear=True):
        yield service


@pytest.fixture
def record(tmp_path) -> Path:
    return tmp_path / "run" / "tasks.jsonl"


def purse(device, record: Path, **changed) -> Purse:
    return Purse(device, **dict(circuits=CIRCUITS, batches=2, budget_usd=100.0, record=record, paid=True) | changed)


def gradients(device, open_purse: Purse | None, **options) -> torch.Tensor:
    """Gradients of a small layer, for its input and weights; without a purse by our own engine."""
    simulator = "statevector"
    if open_purse is not None:
        fast = dict(poll_interval_seconds=0.01, max_parallel=4, max_retries=1) | options
        simulator = devices.connect(device, 2, session=open_purse.session, **fast)
    shots = device.shots if open_purse else 0
    layer = QuantumLayer(2, 1, simulator=simulator, diff_method="parameter-shift", shots=shots)
    layer.theta.data = torch.tensor([[0.3, -0.7]])
    x = torch.tensor([[0.5, 1.1]], requires_grad=True)
    layer(x).sum().backward()
    return torch.cat([x.grad.flatten(), layer.theta.grad.flatten()])


def spent_in(record: Path) -> float:
    return Record(record).usd


@pytest.mark.parametrize(("device", "tolerance"), [(SV1, 1e-5), (PROCESSOR, 0.15)], ids=["sv1", "processor"])
def test_a_layer_learns_on_a_remote_device_what_it_learns_here(device, tolerance, record):
    with cloud(queue_s=0.1) as service, purse(device, record) as open_purse:
        found = gradients(device, open_purse)
    torch.testing.assert_close(found, gradients(device, None), rtol=0, atol=tolerance)
    assert len(service.tasks) == open_purse.sent == CIRCUITS
    assert open_purse.found == 0


def test_a_device_that_takes_program_sets_is_paid_two_tasks_a_step(record):
    with cloud(program_sets=True) as service, purse(PROCESSOR, record) as open_purse:
        found = gradients(PROCESSOR, open_purse)
    torch.testing.assert_close(found, gradients(PROCESSOR, None), rtol=0, atol=0.15)
    assert len(service.tasks) == open_purse.estimate.tasks == 2
    assert spent_in(record) == pytest.approx(PROCESSOR.price.of(2, CIRCUITS * PROCESSOR.shots))
    assert open_purse.estimate.usd == pytest.approx(spent_in(record))


@pytest.mark.parametrize("device", [SV1, PROCESSOR], ids=["sv1", "processor"])
def test_our_count_of_money_is_that_of_brakets_own_tracker(device, record):
    with cloud(simulated_s=7.5), purse(device, record) as open_purse:
        gradients(device, open_purse)
        tracked = open_purse.tracked
    assert tracked == pytest.approx(spent_in(record)) and tracked > 0
    if device is SV1:  # billed as long as it ran, which is more than the least
        assert tracked == pytest.approx(CIRCUITS * 7.5 / 60 * 0.075)


# Nothing paid by default


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"paid": False}, r"costs money \(\$0\.075 a minute, at least 3 s a task\): set paid=True, and a budget"),
        ({"budget_usd": 0.0}, r"set a budget above \$0, got 0\.0"),
        ({"budget_usd": float("nan")}, r"set a budget above \$0, got nan"),
        (
            {"budget_usd": 0.01},
            r"9 circuits in 9 tasks for about \$0\.03 would exceed the budget of \$0\.01; nothing was sent",
        ),
    ],
    ids=["no flag", "no budget", "no number", "too small a budget"],
)
def test_nothing_is_sent_without_a_flag_and_a_budget_that_suffices(changed, why, record):
    with cloud() as service, pytest.raises(BudgetError, match=why), purse(SV1, record, **changed):
        pytest.fail("the purse opened")
    assert not service.tasks and "POST braket quantum-task" not in service.calls


def test_nothing_is_asked_of_aws_without_the_flag(record):
    with cloud() as service, pytest.raises(BudgetError), purse(SV1, record, paid=False):
        pytest.fail("the purse opened")
    assert not service.calls and not record.exists()


def test_nothing_is_sent_without_credentials(record):
    with cloud() as service, mock.patch.dict(os.environ):
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        with pytest.raises(DeviceError, match="sv1 cannot be used: no AWS credentials"), purse(SV1, record):
            pytest.fail("the purse opened")
    assert not service.calls


def test_the_device_itself_says_what_a_shot_costs(record):
    with cloud() as service:
        service.devices[PROCESSOR.arn][-1]["service"]["deviceCost"]["price"] = 1.0
        why = r"9 circuits of 1,000 shots in 9 tasks for about \$9002\.70"
        with pytest.raises(BudgetError, match=why), purse(PROCESSOR, record):
            pytest.fail("the purse opened")


def test_a_device_of_a_purse_sends_nothing_once_the_purse_is_closed(record):
    with cloud() as service:
        with purse(SV1, record) as open_purse:
            backend = devices.connect(SV1, 2, session=open_purse.session, poll_interval_seconds=0.01)
        with pytest.raises(BudgetError, match="closed"):
            QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift")(torch.zeros(1, 2))
    assert not service.tasks


def test_nothing_remote_is_opened_without_a_purse():
    with pytest.raises(DeviceError, match=r"sv1 may cost money: open it within a `spending\.Purse`"):
        devices.connect(SV1, 2)


# Stopped in the middle, and gone on with


@pytest.mark.parametrize("parallel", [True, False])
def test_a_run_stops_before_its_budget_is_passed_and_goes_on_with_a_larger_one(parallel, record):
    budget = 5.5 * TASK["processor"]
    with cloud() as service:
        # An estimate for fewer circuits than are then sent: what a loop of unknown length comes to.
        with (
            pytest.raises(
                BudgetError, match=r"stopped before the budget of \$6\.60 was passed.*5 tasks and 5 results are kept"
            ),
            purse(PROCESSOR, record, circuits=5, budget_usd=budget) as open_purse,
        ):
            gradients(PROCESSOR, open_purse, parallel=parallel)
        assert len(service.tasks) == 5 and spent_in(record) <= budget
        with purse(PROCESSOR, record, budget_usd=2 * budget) as open_purse:
            gradients(PROCESSOR, open_purse)
        assert (open_purse.found, open_purse.sent) == (5, CIRCUITS - 5)
        assert len(service.tasks) == CIRCUITS
    assert spent_in(record) == pytest.approx(CIRCUITS * TASK["processor"])


def test_a_task_that_the_tracker_knows_before_its_answer_is_here_counts_once(record):
    with cloud(), purse(PROCESSOR, record, circuits=2, budget_usd=2.2 * TASK["processor"]) as open_purse:
        asked = {"deviceArn": PROCESSOR.arn, "shots": PROCESSOR.shots}

        def send(**request):
            arn = f"arn:aws:braket:us-west-1:{'0' * 12}:quantum-task/{request['action']}"
            event = _TaskCreationEvent(arn, request["shots"], is_job_task=False, device=PROCESSOR.arn)
            broadcast_event(event)
            if request["action"] == "first":  # and now, before the first is written down, another thread asks
                open_purse.create(asked | {"action": "second"}, send, open_purse.session)
            return arn

        open_purse.create(asked | {"action": "first"}, send, open_purse.session)
        assert open_purse.sent == 2
        with pytest.raises(BudgetError, match="stopped before the budget"):
            open_purse.create(asked | {"action": "third"}, send, open_purse.session)


def test_what_earlier_runs_spent_counts_against_the_budget(record):
    with cloud() as service:
        with purse(SV1, record) as open_purse:
            gradients(SV1, open_purse)
        spent = spent_in(record)
        why = rf"9 circuits in 9 tasks for about \$0\.03, after \${spent:.2f} spent before would exceed"
        with pytest.raises(BudgetError, match=why), purse(SV1, record, circuits=2 * CIRCUITS, budget_usd=1.5 * spent):
            pytest.fail("the purse opened")
    assert len(service.tasks) == CIRCUITS


def test_a_finished_run_is_repeated_from_its_record_alone(record):
    with cloud(), purse(PROCESSOR, record) as open_purse:
        first = gradients(PROCESSOR, open_purse)
    with cloud() as another:  # knows nothing of the tasks
        with purse(PROCESSOR, record, budget_usd=CIRCUITS * TASK["processor"] + 0.01) as open_purse:
            again = gradients(PROCESSOR, open_purse)
        assert not another.tasks
    assert torch.equal(first, again)


def test_the_same_circuit_asked_for_twice_with_shots_is_measured_twice(record):
    with cloud() as service, purse(PROCESSOR, record, circuits=2 * CIRCUITS) as open_purse:
        first, second = (gradients(PROCESSOR, open_purse) for _ in range(2))
    assert len(service.tasks) == 2 * CIRCUITS and not torch.equal(first, second)
    with cloud() as service, purse(PROCESSOR, record, circuits=2 * CIRCUITS) as open_purse:
        third, fourth = (gradients(PROCESSOR, open_purse) for _ in range(2))
        assert not service.tasks
    assert torch.equal(first, third) and torch.equal(second, fourth)


def test_a_run_that_is_killed_pays_for_nothing_twice(record, monkeypatch):
    with cloud(sv1_s=0.2) as service:
        with pytest.raises(KeyboardInterrupt), purse(SV1, record) as open_purse:
            keep, kept = open_purse.record.keep, []

            def killed(id, result):
                keep(id, result)
                kept.append(id)
                if len(kept) == 3:
                    raise KeyboardInterrupt

            monkeypatch.setattr(open_purse.record, "keep", killed)
            gradients(SV1, open_purse, parallel=False)
        sent = len(service.tasks)
        assert 3 <= sent < CIRCUITS
        with purse(SV1, record) as open_purse:
            found = gradients(SV1, open_purse)
        assert len(service.tasks) == CIRCUITS and open_purse.found == sent
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)


def test_two_runs_can_not_use_one_record_at_once(record):
    with cloud(), purse(SV1, record):
        second = purse(SV1, record)
        with pytest.raises(DeviceError, match=r"another run is using .*tasks\.jsonl: wait for it"):
            second.__enter__()


def test_a_line_that_was_cut_off_is_left_out_and_its_task_found_again(record):
    with cloud() as service:
        with purse(SV1, record) as open_purse:
            gradients(SV1, open_purse)
        lines = record.read_text().splitlines()
        sent = [number for number, line in enumerate(lines) if '"CREATED"' in line]
        record.write_text("\n".join([*lines[: sent[-1]], lines[sent[-1]][:40]]))
        for result in record.with_suffix("").iterdir():
            result.unlink()
        with purse(SV1, record) as open_purse:
            gradients(SV1, open_purse)
        assert open_purse.sent == 1  # asked anew, with the same token
        assert len(service.tasks) == CIRCUITS
    assert len(Record(record).tasks) == CIRCUITS


# Accidents


@pytest.mark.parametrize("parallel", [True, False])
def test_a_task_that_fails_is_told_with_its_reason_and_not_billed(parallel, record):
    with cloud(failed=[2, *range(9, 40)]) as service:  # and whatever is tried in its place
        with (
            pytest.raises(DeviceError, match=r"FAILED \(the device of account 0{12} lost its calibration\).* are kept in"),
            purse(PROCESSOR, record, circuits=3) as open_purse,
        ):
            gradients(PROCESSOR, open_purse, parallel=parallel)
        done = sum(service.status(task)[0] == "COMPLETED" for task in service.tasks.values())
        assert spent_in(record) == pytest.approx(done * TASK["processor"])
        service.settings.failed = []
        with purse(PROCESSOR, record) as open_purse:
            found = gradients(PROCESSOR, open_purse)
        assert open_purse.found == done
    torch.testing.assert_close(found, gradients(PROCESSOR, None), rtol=0, atol=0.15)


def test_a_task_that_fails_once_is_tried_again(record):
    with cloud(failed=[4]) as service, purse(SV1, record) as open_purse:
        found = gradients(SV1, open_purse)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert len(service.tasks) == CIRCUITS + 1
    assert spent_in(record) == pytest.approx(CIRCUITS * TASK["sv1"])


@pytest.mark.parametrize("parallel", [True, False])
def test_a_task_that_someone_cancelled_is_not_sent_again_by_itself(parallel, record):
    with cloud(cancelled=[1]) as service:
        with (
            pytest.raises(DeviceError, match=r"task [0-9a-f-]{36} was CANCELLED, by someone with access to this account\. "),
            purse(SV1, record) as open_purse,
        ):
            gradients(SV1, open_purse, parallel=parallel)
        assert 2 <= len(service.tasks) <= CIRCUITS
        service.settings.cancelled = []
        with purse(SV1, record) as open_purse:
            gradients(SV1, open_purse)
        assert len(service.tasks) == CIRCUITS + 1


def test_throttled_requests_are_repeated_and_paid_once(record):
    with cloud(throttled=3) as service, purse(SV1, record) as open_purse:
        found = gradients(SV1, open_purse)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert service.calls["POST braket quantum-task"] == CIRCUITS + 3
    assert len(service.tasks) == open_purse.sent == CIRCUITS


def test_a_lost_answer_is_asked_for_again_and_paid_once(record):
    with cloud(unanswered=[0, 5]) as service, purse(SV1, record) as open_purse:
        found = gradients(SV1, open_purse)
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)
    assert service.calls["POST braket quantum-task"] == CIRCUITS + 2
    assert len(service.tasks) == CIRCUITS


@pytest.mark.parametrize("parallel", [True, False])
def test_a_connection_that_is_lost_loses_nothing(parallel, record, monkeypatch):
    hasty = spending.PATIENCE.merge(Config(retries={"total_max_attempts": 2, "mode": "standard"}))
    monkeypatch.setattr(spending, "PATIENCE", hasty)
    with cloud(sv1_s=0.1) as service:
        with (
            pytest.raises(DeviceError, match=r"the connection to Braket was lost.* are kept in .*tasks\.jsonl"),
            purse(SV1, record) as open_purse,
        ):
            add = open_purse.record.add

            def then_gone(task):
                add(task)
                service.settings.gone = len(open_purse.record.tasks) >= 4

            monkeypatch.setattr(open_purse.record, "add", then_gone)
            gradients(SV1, open_purse, parallel=parallel)
        service.settings.gone = False
        assert 4 <= len(service.tasks) < CIRCUITS
        with purse(SV1, record) as open_purse:
            found = gradients(SV1, open_purse)
        assert len(service.tasks) == CIRCUITS
    torch.testing.assert_close(found, gradients(SV1, None), rtol=0, atol=1e-5)


def test_a_result_that_is_not_in_s3_is_told_and_fetched_when_it_is(record):
    with cloud(lost=[3]) as service:
        with (
            pytest.raises(DeviceError, match=r"task [0-9a-f-]{36} is COMPLETED, but its result is not in S3"),
            purse(SV1, record) as open_purse,
        ):
            gradients(SV1, open_purse)
        sent = len(service.tasks)
        service.settings.lost = []
        with purse(SV1, record) as open_purse:
            gradients(SV1, open_purse)
        assert open_purse.found == sent and len(service.tasks) == CIRCUITS


def test_a_processor_that_goes_offline_is_told(record):
    with (
        cloud() as service,
        pytest.raises(DeviceError, match=r"Braket refused with DeviceOfflineException\. "),
        purse(PROCESSOR, record) as open_purse,
    ):
        backend = devices.connect(PROCESSOR, 2, session=open_purse.session)
        *known, _, properties = service.devices[PROCESSOR.arn]
        service.devices[PROCESSOR.arn] = (*known, "OFFLINE", properties)
        QuantumLayer(2, 1, simulator=backend, diff_method="parameter-shift", shots=100)(torch.zeros(1, 2))


def test_a_price_list_that_can_not_be_had_leaves_our_own_count(record, monkeypatch):
    with cloud(), monkeypatch.context() as patched:
        patched.setattr(spending, "_price_list", lambda: False)
        with purse(PROCESSOR, record) as open_purse:
            gradients(PROCESSOR, open_purse)
        assert open_purse.tracked == 0 and open_purse.usd == pytest.approx(CIRCUITS * TASK["processor"])


# Nobody's account


def test_neither_account_nor_bucket_nor_key_is_written_down(record, capfd):
    with cloud(failed=[1]) as service, purse(SV1, record) as open_purse:
        gradients(SV1, open_purse)
        print(open_purse.estimate, devices.state(SV1), repr(open_purse.record.tasks))
    written = [path.read_text() for path in record.parent.rglob("*") if path.is_file()]
    shown = "\n".join([*written, *capfd.readouterr()])
    assert len(written) > CIRCUITS and json.loads(record.read_text().splitlines()[1])["id"] in shown
    buckets = {task.request["outputS3Bucket"] for task in service.tasks.values()}
    for secret in {service.account, "emulated", *buckets}:
        assert secret not in shown
    assert set(re.findall(r"(?<![\w.-])\d{12}(?![\w.-])", shown)) <= {"0" * 12}
