"""A stand-in on this machine for what `braket.aws.qubit` talks to: Braket, the part of S3 that holds results, STS, prices.

It speaks HTTP on 127.0.0.1, knows a simulator like SV1 and a processor like Rigetti's, runs what it is sent with Braket's own
state-vector simulator, and takes as long, and fails as, it is told to. A client finds it by the environment variables that
AWS's own software reads. Nothing that it says tells how fast or how dear Amazon is. Used in book/experiments/remote_devices.

As a program it prints its environment variables, and serves until its input ends; each line of input is a new way to behave.
"""

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import unquote, urlsplit
from uuid import uuid4

PROGRAM, PROGRAM_SET = "braket.ir.openqasm.program", "braket.ir.openqasm.program_set"
SV1 = "arn:aws:braket:::device/quantum-simulator/amazon/sv1"
PROCESSOR = "arn:aws:braket:us-west-1::device/qpu/rigetti/Cepheus-1-108Q"
TASK, SHOT, MINUTE = 0.30, 0.0009, 0.075
"""What it bills, in USD: the processor for a task and a shot, SV1 for a minute."""
ABOUT = "The price list begins with five lines about itself.\n" * 5
PRICES = f"""{ABOUT}Region Code,Version,Product Family,operation,DeviceName,Currency,PricePerUnit,Unit
us-east-1,SV1,Simulator Task,CompleteTask,,USD,{MINUTE},minutes
us-west-1,,Quantum Task,,Cepheus-1-108Q,USD,{TASK},Task
us-west-1,,Quantum Task-Shot,,Cepheus-1-108Q,USD,{SHOT},Shot
"""


@dataclass
class EmulatorSettings:
    """How the service behaves; times in seconds, tasks counted from 0 in the order in which they are created.

    `request_s`: before each answer; `sv1_s`, `processor_s`: from created to completed at least; `simulated_s`: what SV1 says
    that a simulation took. Of the processor: `queue_s`, before it runs; `readout`, probability of a wrong bit; `program_sets`,
    whether it takes many circuits as one task, at most `executables`; `most_shots` of a circuit; `status`.
    """

    request_s: float = 0.0
    sv1_s: float = 0.0
    processor_s: float = 0.0
    queue_s: float = 0.0
    readout: float = 0.0
    program_sets: bool = False
    executables: int = 100
    most_shots: int = 50_000
    simulated_s: float = 0.005
    status: str = "ONLINE"
    throttled: int = 0  # so many requests for tasks are refused, the first ones
    failed: list[int] = field(default_factory=list)  # these tasks fail
    cancelled: list[int] = field(default_factory=list)  # these are cancelled
    unanswered: list[int] = field(default_factory=list)  # these are created, and the connection is closed without an answer
    lost: list[int] = field(default_factory=list)  # the results of these are not in S3
    silent: bool = False  # nothing is ever answered
    gone: bool = False  # every connection is closed without an answer
    refused: str = ""  # every request to Braket is refused with this code
    invalid: str = ""  # every request for a task is refused with this message


@dataclass
class EmulatedTask:
    """A task as Braket knows it."""

    number: int
    arn: str
    request: dict
    created: float
    starts: float
    ends: float
    result: Future


class Service:
    """What the stand-in knows: devices, tasks, results, and how often it was asked for what."""

    def __init__(self, settings: EmulatorSettings):
        self.lock, self.rng = threading.Lock(), random.Random(0)
        self.account = f"{random.SystemRandom().randrange(10**11, 10**12)}"  # a new one each time: it must show up nowhere
        self.tasks: dict[str, EmulatedTask] = {}
        self.tokens: dict[str, EmulatedTask] = {}
        self.calls: Counter[str] = Counter()
        self.pool = ThreadPoolExecutor(1)  # one simulator
        self.behave(settings)

    def behave(self, settings: EmulatorSettings) -> None:
        """From now on in another way."""
        self.settings = settings
        self.devices = {
            SV1: ("SV1", "Amazon Braket", "SIMULATOR", "ONLINE", _simulator(100_000, {"price": MINUTE, "unit": "minute"})),
            PROCESSOR: ("Cepheus-1-108Q", "Rigetti", "QPU", settings.status, _processor(settings)),
        }

    def create(self, request: dict, region: str) -> EmulatedTask:
        """A new task, or the one that was created with the same token."""
        with self.lock:
            if request["clientToken"] in self.tokens:
                return self.tokens[request["clientToken"]]
            processor = request["deviceArn"] == PROCESSOR
            now = time.time()
            starts = now + (self.settings.queue_s if processor else 0.0)
            ends = starts + (self.settings.processor_s if processor else self.settings.sv1_s)
            arn = f"arn:aws:braket:{region}:{self.account}:quantum-task/{uuid4()}"
            result = self.pool.submit(self._run, request, arn, processor)
            task = EmulatedTask(len(self.tasks), arn, request, now, starts, ends, result)
            self.tasks[arn] = self.tokens[request["clientToken"]] = task
            return task

    @property
    def usd(self) -> float:
        """What all tasks cost that did not fail and were not cancelled."""
        billed = [task for task in self.tasks.values() if self.status(task)[0] not in ("FAILED", "CANCELLED")]
        processor = [task for task in billed if task.request["deviceArn"] == PROCESSOR]
        simulated = max(3.0, self.settings.simulated_s) / 60 * MINUTE * (len(billed) - len(processor))
        return simulated + sum(TASK + SHOT * int(task.request["shots"]) for task in processor)

    def status(self, task: EmulatedTask) -> tuple[str, str]:
        """The state of a task, and why it failed."""
        if task.number in self.settings.cancelled:
            return "CANCELLED", ""
        if time.time() < task.starts:
            return "QUEUED", ""
        if time.time() < task.ends or not task.result.done():
            return "RUNNING", ""
        if task.number in self.settings.failed:
            return "FAILED", f"the device of account {self.account} lost its calibration"
        return ("FAILED", str(task.result.exception())) if task.result.exception() else ("COMPLETED", "")

    def _run(self, request: dict, arn: str, processor: bool) -> bytes:
        """The circuit, run by Braket's simulator, and its result as Braket writes it."""
        from braket.default_simulator import StateVectorSimulator
        from braket.schema_common import BraketSchemaBase

        found = StateVectorSimulator().run(BraketSchemaBase.parse_raw_schema(request["action"]), shots=int(request["shots"]))
        if processor and self.settings.readout:
            for executable in [e for p in getattr(found, "programResults", []) for e in p.executableResults] or [found]:
                executable.measurements = [[self._misread(bit) for bit in shot] for shot in executable.measurements]
        answer = json.loads(found.json())
        for name in [name for name in ("measurements", "measurementProbabilities") if name in answer and not answer[name]]:
            del answer[name]  # absent without shots, not empty
        if answer.get("measurements"):
            answer["measurements"] = [[int(bit) for bit in shot] for shot in answer["measurements"]]
            answer["resultTypes"] = _from_samples(found)
        answer["taskMetadata"] |= {"id": arn, "deviceId": request["deviceArn"]}
        if not processor:
            header = {"name": "braket.task_result.simulator_metadata", "version": "1"}
            duration = round(1000 * self.settings.simulated_s)
            answer["additionalMetadata"]["simulatorMetadata"] = {"braketSchemaHeader": header, "executionDuration": duration}
        return json.dumps(answer).encode()

    def _misread(self, bit: str | int) -> int:
        return int(bit) ^ (self.rng.random() < self.settings.readout)


def _from_samples(found: Any) -> list[dict]:
    """What Braket computes of samples for each result that was asked for."""
    import numpy as np
    from braket.tasks import GateModelQuantumTaskResult

    results = GateModelQuantumTaskResult.from_object(found).result_types
    return [{"type": json.loads(r.type.json()), "value": np.asarray(r.value).tolist()} for r in results]


def _simulator(most_shots: int, cost: dict, *actions: str) -> dict:
    """What a device says of itself that does as Braket's own simulator, as far as it takes such programs."""
    from braket.default_simulator import StateVectorSimulator

    properties = json.loads(StateVectorSimulator().properties.json())
    properties["service"] |= {"shotsRange": [0, most_shots], "deviceCost": cost}
    properties["action"] = {name: properties["action"][name] for name in (PROGRAM, *actions)}
    return properties


def _processor(settings: EmulatorSettings) -> dict:
    """What a processor of three by three qubits says of itself: shots only, and no matrix as a gate."""
    sets = [PROGRAM_SET] if settings.program_sets else []
    simulator = _simulator(settings.most_shots, {"price": SHOT, "unit": "shot"}, *sets)
    for name in sets:
        simulator["action"][name]["maximumExecutables"] = settings.executables
    _without_states(simulator["action"][PROGRAM], settings.most_shots)
    near = {q: [n for n in range(9) if abs(q // 3 - n // 3) + abs(q % 3 - n % 3) == 1] for q in range(9)}
    return simulator | {
        "braketSchemaHeader": {"name": "braket.device_schema.rigetti.rigetti_device_capabilities", "version": "1"},
        "service": simulator["service"] | {"shotsRange": [10, settings.most_shots]},
        "paradigm": {
            "braketSchemaHeader": {"name": "braket.device_schema.gate_model_qpu_paradigm_properties", "version": "1"},
            "qubitCount": 9,
            "nativeGateSet": ["rx", "rz", "iswap"],
            "connectivity": {"fullyConnected": False, "connectivityGraph": {f"{q}": [*map(str, near[q])] for q in near}},
        },
        "deviceParameters": {},
    }


def _without_states(program: dict, most_shots: int) -> None:
    """Take from what a simulator does what would need its state."""
    shots = {"minShots": 10, "maxShots": most_shots, "observables": ["x", "y", "z", "h", "i"]}
    measured = ("Sample", "Expectation", "Variance", "Probability")
    program |= {
        "supportedResultTypes": [kind | shots for kind in program["supportedResultTypes"] if kind["name"] in measured],
        "supportedOperations": [gate for gate in program["supportedOperations"] if gate not in ("unitary", "U", "GPhase")],
        "requiresAllQubitsMeasurement": True,
        "supportPhysicalQubits": True,
        "forbiddenPragmas": [],
    }


class Handler(BaseHTTPRequestHandler):
    """One request: which service is meant stands in its signature."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body of an answer leave together: apart, TCP would hold the body back for 40 ms
    disable_nagle_algorithm = True
    service: Service

    def log_message(self, *_: Any) -> None:
        """Nothing: the tests read what clients print."""

    def answer(self, body: Any, code: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Send a body, as JSON unless it is text or bytes."""
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, code: int, name: str, message: str = "no") -> None:
        """Send an error as Braket does."""
        self.answer({"message": message}, code, x_amzn_errortype=name)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle_request(self) -> None:
        """Pass a request on to the service that it is signed for."""
        service, settings = self.service, self.service.settings
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
        region, name = signed.groups() if signed else ("", "prices")
        with service.lock:
            service.calls[f"{self.command} {name} {path.split('/')[1] if name == 'braket' else ''}".strip()] += 1
        if settings.gone:
            return self.hang_up()
        if settings.silent:
            time.sleep(600)
        time.sleep(settings.request_s)
        if name == "prices":
            return self.answer(PRICES, kind="text/csv")
        {"braket": self.braket, "s3": self.s3, "sts": self.sts}[name](path, body, region)

    do_GET = do_POST = do_PUT = do_HEAD = handle_request

    def sts(self, path: str, body: bytes, region: str) -> None:
        """Whose credentials these are."""
        account, space = self.service.account, "https://sts.amazonaws.com/doc/2011-06-15/"
        who = f"<Arn>arn:aws:iam::{account}:user/reader</Arn><UserId>reader</UserId><Account>{account}</Account>"
        result = f"<GetCallerIdentityResult>{who}</GetCallerIdentityResult>"
        self.answer(f'<GetCallerIdentityResponse xmlns="{space}">{result}</GetCallerIdentityResponse>', kind="text/xml")

    def s3(self, path: str, body: bytes, region: str) -> None:
        """The result of a task, once there is one."""
        if self.command in ("PUT", "HEAD"):  # the bucket for results is made by the client
            return self.answer(b"")
        task = next((t for t in self.service.tasks.values() if t.arn.rpartition("/")[2] in path), None)
        if task is None or task.number in self.service.settings.lost or self.service.status(task)[0] != "COMPLETED":
            return self.answer("<Error><Code>NoSuchKey</Code><Message>no</Message></Error>", 404, "application/xml")
        self.answer(task.result.result(), kind="binary/octet-stream")

    def braket(self, path: str, body: bytes, region: str) -> None:
        """A device, a new task, or the state of one."""
        service, settings = self.service, self.service.settings
        if settings.refused:
            return self.refuse(403, settings.refused, f"user arn:aws:iam::{service.account}:user/reader may not do this")
        if path.startswith("/device/"):
            return self.device(path.removeprefix("/device/"), region)
        if self.command == "POST":
            return self.create(json.loads(body), region)
        task = service.tasks.get(path.removeprefix("/quantum-task/"))
        if task is None:
            return self.refuse(404, "ResourceNotFoundException")
        self.answer(_described(task, *service.status(task)))

    def device(self, arn: str, region: str) -> None:
        """What a device says of itself, where it stands."""
        if arn not in self.service.devices or arn.split(":")[3] not in ("", region):
            return self.refuse(404, "ResourceNotFoundException")
        name, provider, kind, status, properties = self.service.devices[arn]
        known = {"deviceArn": arn, "deviceName": name, "providerName": provider, "deviceType": kind, "deviceStatus": status}
        self.answer(known | {"deviceCapabilities": json.dumps(properties)})

    def create(self, request: dict, region: str) -> None:
        """A new task, unless it is refused."""
        service, settings = self.service, self.service.settings
        with service.lock:
            throttled = settings.throttled > 0
            settings.throttled -= throttled
        if throttled:
            return self.refuse(429, "ThrottlingException", "Rate exceeded")
        if service.devices[request["deviceArn"]][3] != "ONLINE":
            return self.refuse(409, "DeviceOfflineException")
        if settings.invalid:
            who = f"arn:aws:iam::{service.account}:user/reader"
            return self.refuse(400, "ValidationException", f"{settings.invalid}, asked for by {who}")
        known = service.tokens.get(request["clientToken"])
        if known and known.request["action"] != request["action"]:
            return self.refuse(409, "ConflictException", "the token is that of another request")
        task = service.create(request, region)
        if task.number in settings.unanswered and not known:
            return self.hang_up()
        self.answer({"quantumTaskArn": task.arn}, 201)


def _described(task: EmulatedTask, status: str, why: str) -> dict:
    """What Braket says of a task."""
    asked = task.request
    times = {"createdAt": task.created}
    if status in ("COMPLETED", "FAILED", "CANCELLED"):
        times["endedAt"] = max(task.ends, task.created)
    return {
        "quantumTaskArn": task.arn,
        "status": status,
        "failureReason": why,
        "deviceParameters": asked.get("deviceParameters") or "{}",
        "outputS3Directory": f"{asked['outputS3KeyPrefix']}/{task.arn.rpartition('/')[2]}",
        "queueInfo": {"queue": "QUANTUM_TASKS_QUEUE", "position": "1", "queuePriority": "Normal"},
        "actionMetadata": {"actionType": json.loads(asked["action"])["braketSchemaHeader"]["name"]},
        **{name: asked[name] for name in ("deviceArn", "shots", "outputS3Bucket")},
        **{name: datetime.fromtimestamp(moment, UTC).isoformat() for name, moment in times.items()},
    }


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed closes its connection without a word."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(**settings: Any) -> Iterator[tuple[Service, dict[str, str]]]:
    """The service in this process; gives the `Service` and the environment variables of its clients."""
    service = Service(EmulatorSettings(**settings))
    server = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"service": service}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield service, environment(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
        service.pool.shutdown(cancel_futures=True)


def environment(url: str) -> dict[str, str]:
    """The variables by which AWS's own software finds the service and nothing else of the reader's."""
    keys = {"AWS_ACCESS_KEY_ID": "emulated", "AWS_SECRET_ACCESS_KEY": "emulated", "AWS_DEFAULT_REGION": "us-east-1"}
    services = {f"AWS_ENDPOINT_URL_{name}": url for name in ("BRAKET", "S3", "STS")}
    nothing = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}
    return keys | services | nothing | {"BRAKET_PRICE_OFFERS_URL": f"{url}/prices.csv"}


@contextmanager
def emulated(**settings: Any) -> Iterator[None]:
    """Makes this process a client of the service, in a process of its own, which behaves as `EmulatorSettings` says.

    The service is started at the first use and ends with this process, whose end is the end of its input.
    """
    process, variables = _process()
    assert process.stdout  # a pipe
    print(json.dumps(settings), file=process.stdin, flush=True)
    if process.stdout.readline() != "done\n":
        raise RuntimeError(f"the emulated service does not know how to behave like {settings}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    with mock.patch.dict(os.environ, kept | variables, clear=True):
        yield


@cache
def _process() -> tuple[subprocess.Popen, dict[str, str]]:
    """The service, and the environment variables of its clients."""
    program = [sys.executable, "-m", "hqnn_utils.hardware.emulator"]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout  # a pipe
    return process, json.loads(process.stdout.readline())


if __name__ == "__main__":
    with serving() as (service, variables):
        print(json.dumps(variables), flush=True)
        for line in sys.stdin:
            service.behave(EmulatorSettings(**json.loads(line)))
            print("done", flush=True)
