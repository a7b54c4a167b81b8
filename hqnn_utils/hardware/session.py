"""Braket's session, which asks a budget before every circuit: the only way to Braket in a process that has imported this.

What Braket's software is told, and therefore what it prints, names no account.
"""

import hashlib
import json
import re
from contextvars import ContextVar
from functools import wraps
from inspect import unwrap
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from braket.aws import AwsQuantumTask, AwsSession

from hqnn_utils.hardware.devices import ACCOUNT, NOBODY, DeviceError

UNPAID = ("FAILED", "CANCELLED")
"""States of a task for which Braket bills nothing, as its own cost tracker counts."""
PATIENCE = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 8, "mode": "standard"})
"""How often a request is repeated that was throttled or not answered, with growing pauses of about a minute in all."""
PROGRAM_SET = "braket.ir.openqasm.program_set"


class BudgetError(DeviceError):
    """What would be paid, or a switch that is not set, stands against running; nothing beyond the budget was sent."""


class Session(AwsSession):
    """Braket's session for a `budget.Budget`, which it asks before every circuit, and which keeps every result."""

    def __init__(self, budget, boto_session: boto3.Session, max_connections: int | None = None):
        self.budget = budget
        boto_session.events.register("after-call", self._forget)
        connections = {"max_pool_connections": max_connections} if max_connections else {}
        super().__init__(boto_session, config=PATIENCE.merge(Config(**connections)))

    def _forget(self, parsed: dict, **_) -> None:
        """Take the account out of what AWS says, before anyone can print it."""
        if "quantumTaskArn" in parsed:
            self.budget.account = parsed["quantumTaskArn"].split(":")[4]
            parsed.update(_without(self.budget.account, parsed))
        told = {
            name: parsed[name]
            for name in ("Error", "message", "failureReason", "programSetValidationFailures")
            if name in parsed
        }
        parsed.update(_without(ACCOUNT, told))

    def arn(self, id: str, account: str = NOBODY) -> str:
        """The name of a task, as Braket's software is told, or as Braket knows it."""
        return f"arn:aws:braket:{self.region}:{account}:quantum-task/{id}"

    def create_quantum_task(self, **request) -> str:
        """Send a circuit, unless it was paid for before."""
        return self.arn(self.budget.create(request, self._send, self))

    def _send(self, **request) -> str:
        sending = _sending.set(True)
        try:
            return super().create_quantum_task(**request)
        finally:
            _sending.reset(sending)

    def get_quantum_task(self, arn: str) -> dict[str, Any]:
        """What Braket says of a task, whose result is fetched as soon as there is one; it is not asked where one is kept."""
        id = arn.rpartition("/")[2]
        if self.budget.record.result(id) is None:
            account = self.budget.account or self.account_id
            answer = super().get_quantum_task(self.arn(id, account))
            if answer["status"] != "COMPLETED":
                self.budget.note(id, answer)
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
        self.budget.keep(id, _without(account, body), answer)

    def retrieve_s3_object_body(self, s3_bucket: str, s3_object_key: str) -> str:
        """The kept result of a task."""
        kept = self.budget.record.result(s3_object_key.split("/")[-2])
        if kept is not None:
            return kept
        raise DeviceError(f"no result is kept of {s3_object_key}: {'; '.join(self.budget.failures) or 'it did not complete'}")


def canonical(request: dict[str, Any]) -> dict[str, Any]:
    """A request for a task, the same in every process: Braket's SDK declares the inputs of a program in the order of a set.

    Keys of JSON and declarations of inputs are sorted, which changes the meaning of neither.
    """

    def settled(value):
        if isinstance(value, dict):
            return {name: settled(value[name]) for name in sorted(value)}
        if isinstance(value, list):
            return [settled(item) for item in value]
        return _inputs_sorted(value) if isinstance(value, str) else value

    texts = {
        name: json.dumps(settled(json.loads(request[name]))) for name in ("action", "deviceParameters") if name in request
    }
    return request | texts | {"shots": int(request["shots"])}


def _inputs_sorted(source: str) -> str:
    lines = source.split("\n")
    places = [place for place, line in enumerate(lines) if re.match(r"\s*input\s", line)]
    for place, line in zip(places, sorted(lines[place] for place in places), strict=True):
        lines[place] = line
    return "\n".join(lines)


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


def _without(account: str, value):
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
            "nothing is sent to Braket in this process but from an open `budget.Budget`: open one, and the device with "
            "`devices.connect(device, n_qubits, budget=budget)`"
        )
    return _any_call(self, operation_name, api_params)


@wraps(_copy_of_any)
def _copy_session(self: AwsSession, region: str | None = None, max_connections: int | None = None) -> AwsSession:
    """Braket copies sessions for batches and regions, by its own class's method: a copy of ours must stay one of ours."""
    copied = _copy_of_any(self, region, max_connections)
    return Session(self.budget, copied.boto_session, max_connections) if isinstance(self, Session) else copied


@wraps(_result_of_any)
def _result(self: AwsQuantumTask):
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
