"""Runs on remote devices that cost money: within a budget, and nothing is paid for twice.

Nothing paid runs by itself: `within_budget` wants consent, credentials and a sum, estimates the cost before anything is sent,
and asks its budget again before every circuit. Each circuit that was sent is written down, with its result as soon as there is
one; a run that was stopped, for whatever reason, finds both again and pays for neither. Once this module is imported, its
process sends nothing to Braket but from there. Shown in book/experiments/device_costs.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import boto3
from botocore import exceptions as aws
from braket.aws import AwsSession
from filelock import FileLock, Timeout

from hqnn_utils import files
from hqnn_utils.hardware.budget import Budget, BudgetError, Estimate, estimate
from hqnn_utils.hardware.devices import Device, DeviceError, availability, reason
from hqnn_utils.hardware.ledger import Record
from hqnn_utils.hardware.payments import Payments
from hqnn_utils.hardware.session import PATIENCE, Permit, Session, terms

LOCK_S = 5.0
"""How long a record is waited for that another process uses: a kernel outlives its killed parent by a second."""
LOST = (aws.HTTPClientError, aws.ConnectionError)


class PaidRun(NamedTuple):
    """What `within_budget` opens: `session` for Braket's own software, `payments` for what was sent, found and spent.

    `at_once`: how many circuits the device takes as one task.
    """

    device: Device
    session: Session
    payments: Payments
    estimate: Estimate
    at_once: int


@contextmanager
def within_budget(
    device: Device,
    *,
    usd: float,
    circuits: int,
    record: Path | str,
    batches: int = 1,
    shots: int | None = None,
    run: str = "",
    simulation_s: float = 0.0,
    paid: object = False,
) -> Iterator[PaidRun]:
    """A context in which one remote device can be used, up to a sum.

    Args:
        device: a remote one.
        usd: what may be spent, with what earlier runs with the same record have spent.
        circuits: how many the run will send in all, in so many batches.
        record: the file that the tasks are written to, and found in again; as for `ledger.Record`.
        shots: of each circuit, as the layer measures it; by default as the list of devices says. Others are not sent.
        run: what the run computes, where a record serves several. What was spent for other runs, devices or numbers of shots
            comes on top of the estimate.
        simulation_s: what a simulation is taken to last that has not ended; the longest so far if that is more.
        paid: consent. Without `True` itself nothing is asked and nothing sent.

    Raises:
        BudgetError: at the start, without consent, without a sum, or if the estimate exceeds it; later, before the circuit
            that would exceed it, or that is not what the budget is for.
        DeviceError: at the start, if the device or the record cannot be used; later, if a task fails or is cancelled, is still
            queued when the plugin gives up, the connection is lost, or a result is missing. The message says what is kept.
    """
    shots = device.shots if shots is None else shots
    _agree(device, usd, paid, circuits=circuits, batches=batches, shots=shots, simulation_s=simulation_s)
    if not (now := availability(device)).usable:
        raise DeviceError(f"{device.name} cannot be used: {now.why}")
    with _alone(Path(record)) as (lock, kept):
        with _told():
            region = device.region or next((task.region for task in kept.tasks.values() if task.region), None)
            cloud = boto3.Session(region_name=region)
            price, at_once = terms(device, AwsSession(cloud, config=PATIENCE), shots)
            budget = Budget(usd, price, shots, kept.tasks, simulation_s)
            payments = Payments(kept, budget, f"{device.arn}, {shots} shots: {run}")
            expected = estimate(price, circuits, batches, shots, at_once, simulation_s, before=budget.spent)
            budget.admit(device.name, payments.run, expected)
            session = Session(Permit(device, shots, cloud.region_name, lock), payments, cloud)
            opened = PaidRun(device, session, payments, expected, at_once)
        with _closed(opened):
            yield opened


def _agree(device: Device, usd: float, paid: object, **plan: int | float) -> None:
    costs = f"{device.name} costs money ({device.price})"
    if paid is not True:
        raise BudgetError(f"{costs}: set paid=True, and a sum, to use it; got paid={paid!r}")
    if not (0 < usd < math.inf):
        raise BudgetError(f"{costs}: set a sum above $0 that has an end, got {usd}")
    if not (0 < plan["batches"] <= plan["circuits"] and plan["shots"] >= 0 and 0 <= plan["simulation_s"] < math.inf):
        got = ", ".join(f"{name}={value}" for name, value in plan.items())
        raise BudgetError(f"a run has circuits in batches, shots and seconds that are not negative, got {got}")


@contextmanager
def _alone(path: Path) -> Iterator[tuple[FileLock, Record]]:
    """The record, for this process alone."""
    lock, process = FileLock(path.with_suffix(".lock"), timeout=LOCK_S), os.getpid()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        record = Record(path)
    except Timeout:
        raise DeviceError(f"another run is using {path}: wait for it, or name another record") from None
    except (OSError, ValueError) as error:
        lock.release()
        raise DeviceError(f"{path} cannot be the record: {error}") from None
    try:
        yield lock, record
    finally:
        if os.getpid() == process:  # a forked copy leaves: the lock is not its own
            lock.release()


@contextmanager
def _closed(run: PaidRun) -> Iterator[None]:
    """Closes a run; after an error what is ready is fetched, and the error says what is kept."""
    permit, payments = run.session.permit, run.payments
    try:
        yield
    except BaseException as error:
        if os.getpid() != permit.process:
            raise
        if not isinstance(error, LOST):
            with suppress(Exception):  # the error that is on its way out says more than another one
                run.session.collect()
        with _told(payments.summary(), payments.failures):
            raise
    finally:
        permit.is_open = False


@contextmanager
def _told(kept: str = "", failures: Sequence[str] = ()) -> Iterator[None]:
    """What went wrong, in a sentence, with what is kept."""
    try:
        yield
    except LOST:
        what = "the connection to Braket was lost"
    except aws.ClientError as error:
        what = f"Braket refused with {reason(error)}".rstrip(".")
    except BudgetError as error:
        raise BudgetError(f"{error}{kept}") from None
    except (DeviceError, aws.BotoCoreError) as error:
        what = str(error)
    except (RuntimeError, AttributeError):  # what the plugin makes of no result
        if not failures:
            raise
        what = f"tasks did not complete: {'; '.join(dict.fromkeys(failures))}"
    else:
        return
    raise DeviceError(f"{what}{kept}") from None


def folder(name: str) -> Path:
    """Where records are found again whatever folder a run is started in: in the checkout, else in the user's cache folder."""
    return (files.CHECKOUT or files.cache()) / name
