"""Braket, as a run that is paid for sees it: the only way there in a process that has imported this.

What Braket's software is told, and therefore what it prints, names no account.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from contextvars import ContextVar
from functools import partial, wraps
from inspect import unwrap
from threading import Thread
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from braket.aws import AwsQuantumTask, AwsSession
from braket.tracking.pricing import price_search
from filelock import FileLock

from hqnn_utils.hardware.budget import BudgetError
from hqnn_utils.hardware.devices import ACCOUNT, NOBODY, Device, DeviceError, Price
from hqnn_utils.hardware.ledger import UNPAID
from hqnn_utils.hardware.payments import Payments

PATIENCE = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 8, "mode": "standard"})
"""How often a request is repeated that was throttled or not answered, with growing pauses of about a minute in all."""
SENTENCES = ("Error", "message", "failureReason", "programSetValidationFailures")
"""Where AWS says something in words, which may name an account."""
PROGRAM_SET = "braket.ir.openqasm.program_set"


class Permit:
    """Whether a circuit may be sent now: from the process that opened the budget, to the device that it is for.

    Args:
        device, shots: that the budget is for, with so many measurements of each circuit. region: of AWS.
        lock: of the record, held by this process.
    """

    def __init__(self, device: Device, shots: int, region: str, lock: FileLock):
        self.device, self.shots, self.region, self.lock, self.is_open = device, shots, region, lock, True
        self.mark = os.stat(lock.lock_file).st_ino
        self.process = os.getpid()
        self.parent = os.getppid() if os.environ.get("JPY_PARENT_PID") == str(os.getppid()) else None  # of a kernel

    def check(self, request: dict[str, Any], circuits: int, region: str) -> None:
        """Let a request for so many circuits pass.

        Raises:
            BudgetError: it may not be sent from here, now, or at all.
        """
        asked = f"{request['shots']:,} shots" + (f" for {circuits:,} circuits" if circuits > 1 else "")
        orphan = self.parent and os.getppid() != self.parent
        wrong = {
            "this process was forked from the one that opened it: send from there": os.getpid() != self.process,
            "the program that ran this notebook is gone": orphan,
            "it is closed: open a new one to go on": not self.is_open,
            f"the lock of {self.lock.lock_file} was removed, and another run may use it now": self._inode() != self.mark,
            f"it is for {self.device.arn}, not for {request['deviceArn']}": request["deviceArn"] != self.device.arn,
            f"it is for {self.region}, not for {region}": region != self.region,
            f"it is for {self.shots:,} shots a circuit, and the layer asks for {asked}, 0 being exact: give both the same": (
                request["shots"] != circuits * self.shots
            ),
        }
        for why, holds in wrong.items():
            if holds:
                raise BudgetError(f"nothing can be sent from this budget: {why}")

    def _inode(self) -> int | None:
        with suppress(OSError):
            return os.stat(self.lock.lock_file).st_ino
        return None


class Session(AwsSession):
    """Braket's session for a run that is paid for: it asks before every circuit, and keeps every result.

    Args:
        permit: what says whether a request, for so many circuits in a region, may be sent now.
        payments: of the run, which find a circuit again, or have it sent within the budget.
    """

    def __init__(self, permit: Permit, payments: Payments, boto_session: boto3.Session, max_connections: int | None = None):
        self.permit, self.payments, self.account = permit, payments, ""
        boto_session.events.register("after-call", self._forget)
        super().__init__(boto_session, config=PATIENCE.merge(Config(max_pool_connections=max_connections or 10)))

    def _forget(self, parsed: dict, **_: object) -> None:
        """Take the account out of what AWS says, before anyone can print it."""
        if "quantumTaskArn" in parsed:
            self.account = parsed["quantumTaskArn"].split(":")[4]
            parsed.update(_without(self.account, parsed))
        parsed.update(_without(ACCOUNT, {name: parsed[name] for name in SENTENCES if name in parsed}))

    def arn(self, id: str, account: str = NOBODY) -> str:
        """The name of a task, as Braket's software is told, or as Braket knows it."""
        return f"arn:aws:braket:{self.region}:{account}:quantum-task/{id}"

    def create_quantum_task(self, **request: Any) -> str:
        """Send a circuit, unless it was paid for before."""
        request = canonical(request)
        circuits = executables(request["action"])
        self.permit.check(request, circuits, self.region)
        return self.arn(self.payments.once(identity(request), circuits, self.region, partial(self._send, request)))

    def _send(self, request: dict[str, Any], token: str) -> str:
        sending = _sending.set(True)
        try:
            return super().create_quantum_task(**request | {"clientToken": token}).rpartition("/")[2]
        finally:
            _sending.reset(sending)

    def get_quantum_task(self, arn: str) -> dict[str, Any]:
        """What Braket says of a task, whose result is fetched as soon as there is one; it is not asked where one is kept."""
        id = arn.rpartition("/")[2]
        if self.payments.record.result(id) is None:
            account = self.account or self.account_id
            answer = super().get_quantum_task(self.arn(id, account))
            if answer["status"] in UNPAID:
                self.payments.fail(id, answer["status"], answer.get("failureReason") or "no reason given")
            if answer["status"] != "COMPLETED":
                return answer
            self._fetch(id, answer, account)
        # Braket's software asks for the place in the queue when it saw a task queued, which may have ended in between.
        queue = {"queue": "QUANTUM_TASKS_QUEUE", "queuePriority": "Normal", "position": "None"}
        kept = {"outputS3Bucket": "kept", "outputS3Directory": id}
        return {"quantumTaskArn": arn, "status": "COMPLETED", "queueInfo": queue} | kept

    def _fetch(self, id: str, answer: dict[str, Any], account: str) -> None:
        bucket, folder = answer["outputS3Bucket"].replace(NOBODY, account), answer["outputS3Directory"]
        try:
            body = super().retrieve_s3_object_body(bucket, f"{folder}/results.json")
            json.loads(body)
        except ValueError:
            raise DeviceError(f"the result of task {id} that lies in S3 is not whole: try again later") from None
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404", "NoSuchBucket"):
                raise
            raise DeviceError(
                f"task {id} is COMPLETED, but its result is not in S3: was the bucket emptied? Without its line in the record "
                "the circuit would be sent, and paid for, anew"
            ) from None
        self.payments.keep(id, _without(account, body), (answer["endedAt"] - answer["createdAt"]).total_seconds())

    def retrieve_s3_object_body(self, s3_bucket: str, s3_object_key: str) -> str:
        """The kept result of a task."""
        kept = self.payments.record.result(s3_object_key.split("/")[-2])
        if kept is not None:
            return kept
        raise DeviceError(
            f"no result is kept of {s3_object_key}: {'; '.join(self.payments.failures) or 'it did not complete'}"
        )

    def collect(self) -> None:
        """Fetch the results that are ready and not kept yet."""
        for task in list(self.payments.record.tasks.values()):
            if task.status not in UNPAID:
                self.get_quantum_task(self.arn(task.id))


def terms(device: Device, session: AwsSession, shots: int) -> tuple[Price, int]:
    """What a device bills, and how many circuits of so many shots it takes as one task, as it says itself.

    The price is the highest of the list of devices, of the device, and of Amazon's price list.

    Raises:
        DeviceError: it does not take so many shots, or bills by what this package does not know.
    """
    told = json.loads(session.get_device(device.arn)["deviceCapabilities"])
    least, most = told["service"]["shotsRange"]
    if not least <= shots <= most:
        exact = " (exact values, which only simulators have)" if not shots else ""
        raise DeviceError(f"{device.name} takes {least:,} to {most:,} shots a circuit, got {shots:,}{exact}; nothing was sent")
    cost = told["service"].get("deviceCost")
    if cost and cost["unit"] not in ("task", "shot", "minute"):
        raise DeviceError(f"{device.name} bills by the {cost['unit']}, for which no budget can be kept here")
    own = Price(**{f"per_{cost['unit']}": cost["price"]} if cost else {})
    price = device.price.or_more(own).or_more(_listed(device, session.region))
    sets = told["action"].get(PROGRAM_SET) if shots else None
    return price, max(1, min(sets["maximumExecutables"], sets["maximumTotalShots"] // shots)) if sets else 1


def _listed(device: Device, region: str, seconds: float = 10.0) -> Price:
    """What Amazon's price list says; nothing where it cannot be had soon, for its own client would wait without end."""
    name = device.arn.rpartition("/")[2]
    found: dict[str, Any] = {}
    where = {"Region Code": region, "Currency": "USD"}
    products = {
        "per_task": {"DeviceName": name, "Product Family": "Quantum Task"},
        "per_shot": {"DeviceName": name, "Product Family": "Quantum Task-Shot"},
        "per_minute": {"Version": name.upper(), "Product Family": "Simulator Task", "operation": "CompleteTask"},
    }

    def fetch() -> None:
        with suppress(Exception):  # whatever is wrong with a list, there are the other prices
            for part, product in products.items():
                found[part] = max((float(entry["PricePerUnit"]) for entry in price_search(**where | product)), default=0.0)

    client = Thread(target=fetch, daemon=True)
    client.start()
    client.join(seconds)
    return Price() if client.is_alive() else Price(**found)


def canonical(request: dict[str, Any]) -> dict[str, Any]:
    """A request for a task, the same in every process: Braket's SDK declares the inputs of a program in the order of a set.

    Keys of JSON and declarations of inputs are sorted, which changes the meaning of neither.
    """
    request = request | {"shots": int(request["shots"])}
    for name in request.keys() & {"action", "deviceParameters"}:
        request[name] = json.dumps(json.loads(request[name], object_hook=_inputs_sorted), sort_keys=True)
    return request


def _inputs_sorted(fields: dict) -> dict:
    """A program with its declarations of inputs in order; anything else as it is."""
    lines = fields["source"].split("\n") if isinstance(fields.get("source"), str) else []
    places = [place for place, line in enumerate(lines) if re.match(r"\s*input\s", line)]
    for place, line in zip(places, sorted(lines[place] for place in places), strict=True):
        lines[place] = line
    return fields | {"source": "\n".join(lines)} if lines else fields


def identity(request: dict[str, Any]) -> str:
    """What makes a canonical request the same as another: device, program with its inputs, shots, and how it is to be run."""
    parts = ("deviceArn", "action", "shots", "deviceParameters", "experimentalCapabilities")
    origin = {name: request[name] for name in parts if request.get(name)}
    return hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).hexdigest()


def executables(action: str) -> int:
    """How many circuits a program, or a set of programs with lists of inputs, stands for."""
    told = json.loads(action)
    if told["braketSchemaHeader"]["name"] != PROGRAM_SET:
        return 1
    return sum(len(next(iter((program.get("inputs") or {}).values()), [None])) for program in told["programs"])


def _without(account: str, value: Any) -> Any:
    """The same without the number of an account, of which a pattern is given."""
    if isinstance(value, dict):
        return {name: _without(account, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without(account, item) for item in value]
    return re.sub(account, NOBODY, value) if isinstance(value, str) else value


# What Braket's and AWS's software does in this process, it does within a budget or not at all.

_sending: ContextVar[bool] = ContextVar("sending", default=False)
_copy_of_any, _result_of_any, _any_call = map(
    unwrap, (AwsSession.copy_session, AwsQuantumTask.result, BaseClient._make_api_call)
)


@wraps(_any_call)
def _guarded(self: BaseClient, operation_name: str, api_params: dict) -> dict:
    """No task and no job but through `Session`, whoever asks: a session, a device or a client made elsewhere."""
    if operation_name in ("CreateQuantumTask", "CreateJob") and not _sending.get():
        raise BudgetError(
            "nothing is sent to Braket in this process but from an open budget: open one with `paid.within_budget`, and the "
            "device with `devices.connect(device, n_qubits, run=run)`"
        )
    return _any_call(self, operation_name, api_params)


@wraps(_copy_of_any)
def _copy_session(self: AwsSession, region: str | None = None, max_connections: int | None = None) -> AwsSession:
    """Braket copies sessions for batches and regions, by its own class's method: a copy of ours must stay one of ours."""
    copied = _copy_of_any(self, region, max_connections)
    if not isinstance(self, Session):
        return copied
    return Session(self.permit, self.payments, copied.boto_session, max_connections)


@wraps(_result_of_any)
def _result(self: AwsQuantumTask) -> Any:
    """Where the SDK gives up waiting it returns nothing, and its batches send the circuit again: say so instead."""
    found = _result_of_any(self)
    if found is None and isinstance(self._aws_session, Session):
        if (status := self.state()) == "COMPLETED":
            return _result_of_any(self)
        if status not in UNPAID:
            raise DeviceError(
                f"task {self.id.rpartition('/')[2]} is still {status}: run again later, to wait for it and not pay"
            )
    return found


BaseClient._make_api_call, AwsSession.copy_session, AwsQuantumTask.result = _guarded, _copy_session, _result
