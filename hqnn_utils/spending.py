"""A budget for circuits on remote devices, and a record that keeps what was paid for.

Nothing paid runs by itself: a `Purse` wants a flag, credentials and a budget, estimates the cost before anything is sent, and
asks again before every circuit. Each circuit that was sent is written down, with its result as soon as there is one; a run
that was stopped, for whatever reason, finds both again and pays for neither. Shown in book/experiments/device_timing.
"""

import hashlib
import json
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from braket.aws import AwsSession
from braket.tracking import Tracker
from braket.tracking.pricing import price_search
from filelock import FileLock, Timeout
from urllib3.exceptions import HTTPError

from hqnn_utils.devices import Device, DeviceError, Price, aws_client, state
from hqnn_utils.ledger import Record, Task

UNPAID = ("FAILED", "CANCELLED")
"""States of a task for which Braket bills nothing, as its own cost tracker counts."""
NOBODY = "0" * 12
"""Stands where an account number stood."""
PATIENCE = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 8, "mode": "standard"})
"""How often a request is repeated that was throttled or not answered, with growing pauses of about a minute in all."""


class BudgetError(DeviceError):
    """What would be paid, or a switch that is not set, stands against running; nothing beyond the budget was sent."""


class Estimate(NamedTuple):
    """What a run has still to send and to pay: tasks, the circuits in them, shots of each; and USD spent before it."""

    tasks: int
    circuits: int
    shots: int
    usd: float
    before: float

    def __str__(self) -> str:
        shots = f" of {self.shots:,} shots" if self.shots else ""
        before = f", after ${self.before:.2f} spent before" if self.before else ""
        return f"{self.circuits:,} circuits{shots} in {self.tasks:,} tasks for about ${self.usd:.2f}{before}"


class Purse:
    """A context in which a remote device can be used, up to a budget.

    Args:
        device: a remote one.
        circuits: how many the run will send in all, in so many batches. A device that takes program sets is paid for a batch
            as for one task, others for each circuit.
        budget_usd: what may be spent, with what earlier runs with the same record have spent.
        record: the file that the tasks are written to, and found in again.
        paid: whether paying was switched on; without it nothing is asked and nothing sent.

    Attributes:
        session: for `devices.connect`.
        estimate: of this run.
        sent, found: number of tasks that were paid for, and of those that an earlier run had paid for.

    Raises:
        BudgetError: at the start, if paying is not switched on, there is no budget, or the estimate exceeds it; later, before
            the circuit that would exceed it.
        DeviceError: at the start, if the device cannot be used or the record is in use; later, if a task fails or is
            cancelled, the connection is lost, or a result is missing. The message says what is kept.
    """

    def __init__(self, device: Device, *, circuits: int, batches: int, budget_usd: float, record: Path, paid: bool = False):
        self.device, self.circuits, self.batches = device, circuits, batches
        self.budget_usd, self.path, self.paid = budget_usd, Path(record), paid
        self.lock = threading.RLock()
        self.is_open, self.sent, self.found = False, 0, 0
        self.pending: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> "Purse":
        if not self.paid:
            raise BudgetError(f"{self.device.name} costs money ({self.device.price}): set paid=True, and a budget, to use it")
        if not self.budget_usd > 0:
            raise BudgetError(f"{self.device.name} costs money: set a budget above $0, got {self.budget_usd}")
        if not (now := state(self.device)).usable:
            raise DeviceError(f"{self.device.name} cannot be used: {now.why}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.alone = FileLock(self.path.with_suffix(".lock"), blocking=False)
        try:
            self.alone.acquire()
        except Timeout:
            raise DeviceError(f"another run is using {self.path}: wait for it, or name another record") from None
        try:
            self._open()
        except BaseException:
            self.alone.release()
            raise
        return self

    def _open(self) -> None:
        self.price, one_task = _asked(self.device)
        self.record = Record(self.path)
        self.before = self.record.usd
        self.unused = [task for task in self.record.tasks.values() if task.status not in UNPAID]
        tasks = self.batches if one_task else self.circuits
        new = max(0, tasks - len(self.unused))
        circuits, shots = -(-new * self.circuits // tasks), self.device.shots
        self.estimate = Estimate(new, circuits, shots, self.price.of(new, circuits * shots), self.before)
        if self.before + self.estimate.usd > self.budget_usd:
            raise BudgetError(
                f"{self.device.name}: {self.estimate} would exceed the budget of ${self.budget_usd:.2f}; nothing was sent. "
                "Allow more, or send less: fewer steps, a smaller batch, fewer shots"
            )
        self.tracker = _Tracker() if _price_list() else None
        if self.tracker:
            self.tracker.start()
        self.session = Session(self, boto3.Session(region_name=self.device.region or None))
        self.is_open = True

    def __exit__(self, kind, error, trace) -> None:
        lost = isinstance(error, aws.HTTPClientError | aws.ConnectionError)
        if error is not None and not lost:
            with suppress(Exception):  # the error that is on its way out says more than another one
                self._collect()
        self.is_open = False
        if self.tracker:
            self.tracker.stop()
        self.alone.release()
        if lost:
            what = "the connection to Braket was lost"
        elif isinstance(error, aws.ClientError):
            what = f"Braket refused with {error.response['Error']['Code']}"
        elif isinstance(error, DeviceError):
            what = str(error)
        elif isinstance(error, RuntimeError | AttributeError) and self.failures:  # what the plugin makes of no result
            what = f"tasks did not complete: {'; '.join(dict.fromkeys(self.failures))}"
        else:
            return
        raise (BudgetError if isinstance(error, BudgetError) else DeviceError)(f"{what}. {self._kept()}") from None

    def _kept(self) -> str:
        done = sum(self.record.result(id) is not None for id in self.record.tasks)
        return (
            f"${self.usd:.2f} are spent; {len(self.record.tasks)} tasks and {done} results are kept in {self.path}: the same "
            "run, started again, goes on from there and does not pay for them again"
        )

    @property
    def usd(self) -> float:
        """USD spent so far with this record: by our count, or Braket's cost tracker where that is higher."""
        with self.lock:
            return max(self.record.usd, self.before + self.tracked)

    @property
    def tracked(self) -> float:
        """USD of this run alone, by Braket's cost tracker; 0 where its price list cannot be had."""
        return self.tracker.usd() if self.tracker else 0.0

    def create(self, request: dict[str, Any], send, session: "Session") -> str:
        """The name of the task for a circuit: of one that was paid for before, else of a new one, if the budget allows it."""
        origin = [request[name] for name in ("deviceArn", "action", "shots")] + [request.get("deviceParameters", "")]
        key = hashlib.sha256(json.dumps(origin).encode()).hexdigest()
        with self.lock:
            if not self.is_open:
                raise BudgetError("the purse of this device is closed: open a new one to go on")
            for task in self.unused:
                if task.key == key:
                    self.unused.remove(task)
                    self.found += 1
                    return session.arn(task.id)
            cost = self._cost(request["shots"])
            if (spent := self._committed(cost)) + cost > self.budget_usd:
                raise BudgetError(
                    f"stopped before the budget of ${self.budget_usd:.2f} was passed: ${spent:.2f} are spent or on their way, "
                    f"and one more task costs about ${cost:.4f}"
                )
            self.pending.append(cost)
            number, token = self.record.token(key)
        try:
            arn = send(**request | {"clientToken": token})
        except aws.ClientError:  # a refusal; a task whose answer was lost may be there, and stays on its way
            with self.lock:
                self.pending.remove(cost)
            raise
        with self.lock:
            self.pending.remove(cost)
            self.sent += 1
            self.record.add(Task(arn.rpartition("/")[2], key, number, usd=cost))
        return arn

    def _committed(self, cost: float) -> float:
        """USD spent and on their way, by our count or by the tracker's, which learns of a task while it is being sent."""
        ours = self.record.usd + sum(self.pending)
        if not self.tracker:
            return ours
        unknown = self.sent + len(self.pending) - len(self.tracker.tracked_resources())
        return max(ours, self.before + self.tracked + unknown * cost)

    def _cost(self, shots: int) -> float:
        """USD that a circuit on its way is taken to cost: of a simulator, as long as the longest so far."""
        longest = max((task.usd for task in self.record.tasks.values()), default=0.0) if self.price.per_minute else 0.0
        return max(self.price.of(1, shots), longest)

    def note(self, arn: str, answer: dict[str, Any]) -> None:
        """Write down what Braket says of a task."""
        id, status = arn.rpartition("/")[2], answer["status"]
        with self.lock:
            if status in UNPAID:
                self.record.note(id, status=status, usd=0.0)
                if status == "FAILED":
                    self.failures.append(f"FAILED ({answer.get('failureReason', 'no reason given')})")
        if status == "CANCELLED":
            raise DeviceError(f"task {id} was CANCELLED, by someone with access to this account")

    def _collect(self) -> None:
        """Fetch the results that are ready and not kept yet."""
        session = self.session
        for task in list(self.record.tasks.values()):
            if task.status not in UNPAID and self.record.result(task.id) is None:
                answer = session.get_quantum_task(session.arn(task.id))
                if answer["status"] == "COMPLETED":
                    session.retrieve_s3_object_body(answer["outputS3Bucket"], answer["outputS3Directory"] + "/results.json")

    def keep(self, id: str, body: str, answer: dict[str, Any]) -> None:
        """Keep a result, without the account number that its names hold, and then what the task took."""
        account = answer["quantumTaskArn"].split(":")[4]
        with self.lock:
            self.record.keep(id, body.replace(account, NOBODY))
            usd = self.record.tasks[id].usd
            if self.price.per_minute:
                simulator = json.loads(body).get("additionalMetadata", {}).get("simulatorMetadata") or {}
                usd = self.price.of(1, seconds=simulator.get("executionDuration", 0) / 1000)
            seconds = (answer["endedAt"] - answer["createdAt"]).total_seconds()
            self.record.note(id, status="COMPLETED", usd=usd, seconds=seconds)


class Session(AwsSession):
    """Braket's session, which asks its purse before every circuit and keeps every result."""

    def __init__(self, purse: Purse, boto_session: boto3.Session, max_connections: int | None = None):
        connections = {"max_pool_connections": max_connections} if max_connections else {}
        super().__init__(boto_session, config=PATIENCE.merge(Config(**connections)))
        self.purse, self.answers = purse, {}

    def arn(self, id: str) -> str:
        """Braket's name of a task; of one whose result is kept, without an account, since nobody will be asked."""
        account = NOBODY if self.purse.record.result(id) is not None else self.account_id
        return f"arn:aws:braket:{self.region}:{account}:quantum-task/{id}"

    def create_quantum_task(self, **request) -> str:
        """Send a circuit, unless it was paid for before."""
        return self.purse.create(request, super().create_quantum_task, self)

    def get_quantum_task(self, arn: str) -> dict[str, Any]:
        """What Braket says of a task; of one whose result is kept, that it is complete."""
        id = arn.rpartition("/")[2]
        if self.purse.record.result(id) is not None:
            return {"quantumTaskArn": arn, "status": "COMPLETED", "outputS3Bucket": "kept", "outputS3Directory": id}
        answer = self.answers[id] = super().get_quantum_task(arn)
        if "failureReason" in answer:  # which the SDK prints
            answer["failureReason"] = answer["failureReason"].replace(self.account_id, NOBODY)
        self.purse.note(arn, answer)
        return answer

    def retrieve_s3_object_body(self, s3_bucket: str, s3_object_key: str) -> str:
        """The result of a task: the kept one, or that in S3, which is then kept."""
        id = s3_object_key.split("/")[-2]
        if (kept := self.purse.record.result(id)) is not None:
            return kept
        try:
            body = super().retrieve_s3_object_body(s3_bucket, s3_object_key)
        except aws.ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404", "NoSuchBucket"):
                raise
            raise DeviceError(
                f"task {id} is COMPLETED, but its result is not in S3: was the bucket emptied? Without its line in the record "
                "the circuit would be sent, and paid for, anew"
            ) from None
        self.purse.keep(id, body, self.answers[id])
        return body


_copy_of_any = AwsSession.copy_session


def _copy_session(self: AwsSession, region: str | None = None, max_connections: int | None = None) -> AwsSession:
    """Braket copies sessions for batches and regions, by its own class's method: a copy of ours must stay one of ours."""
    copied = _copy_of_any(self, region, max_connections)
    return Session(self.purse, copied.boto_session, max_connections) if isinstance(self, Session) else copied


AwsSession.copy_session = _copy_session


class _Tracker(Tracker):
    """Braket's cost tracker, for several threads."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def receive_event(self, event) -> None:
        with self.lock:
            super().receive_event(event)

    def usd(self) -> float:
        """What all tasks so far cost; of a device that the price list does not have, 0."""
        with self.lock, suppress(ValueError):
            return float(self.qpu_tasks_cost() + self.simulator_tasks_cost())
        return 0.0


def _price_list(seconds: float = 10.0) -> bool:
    """Whether Braket's price list can be had; its own client would wait without end."""

    def fetch():
        with suppress(HTTPError, OSError):
            price_search(Currency="USD")
            fetched.set()

    fetched = threading.Event()
    threading.Thread(target=fetch, daemon=True).start()
    return fetched.wait(seconds)


def _asked(device: Device) -> tuple[Price, bool]:
    """The device's price, as far as it knows that itself; and whether it takes many circuits as one task."""
    answer = aws_client("braket", device.region).get_device(deviceArn=device.arn)
    properties = json.loads(answer["deviceCapabilities"])
    cost = properties["service"].get("deviceCost") or {}
    own = {f"per_{cost['unit']}": cost["price"]} if cost.get("unit") in ("shot", "minute") else {}
    return replace(device.price, **own), bool(device.shots) and "braket.ir.openqasm.program_set" in properties["action"]
