"""The devices a circuit can run on: what they are, whether they can be used here, what they cost, and a way in.

All of them are PennyLane devices but the first, this package's own engine. What stands in `data/devices.toml` is data; prices
there are those of the source it names, and a device that can be asked gives its own.
"""

import os
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple
from urllib.parse import urlsplit

import pennylane as qml

from hqnn_utils.errors import BookError
from hqnn_utils.files import table


class DeviceError(BookError):
    """A device that cannot be used, or did not do what it was asked; the message says why, and what to do."""


@dataclass(frozen=True)
class Price:
    """What a provider bills, in USD; all zero where a circuit costs nothing but time.

    Args:
        per_task: for whatever is sent as one, mostly a circuit. per_shot: for each measurement.
        per_minute: of simulation, of which at least `least_s` seconds are billed for each circuit.
        source, date: where these prices stand, and when they were entered here. note: what else is to be known of them.

    Raises:
        DeviceError: a price that is negative or no finite number.
    """

    per_task: float = 0.0
    per_shot: float = 0.0
    per_minute: float = 0.0
    least_s: float = 0.0
    source: str = ""
    date: str = ""
    note: str = ""

    def __post_init__(self):
        amounts = (self.per_task, self.per_shot, self.per_minute, self.least_s)
        if not all(0 <= amount < float("inf") for amount in amounts):
            raise DeviceError(f"a price must be a finite number that is not negative, got {amounts}")

    def or_more(self, other: "Price") -> "Price":
        """The higher of two prices, each part for itself."""
        parts = ("per_task", "per_shot", "per_minute", "least_s")
        return replace(self, **{part: max(getattr(self, part), getattr(other, part)) for part in parts})

    def of(self, tasks: int, shots: int = 0, seconds: float = 0.0) -> float:
        """USD for a number of tasks with so many shots in all, or with so many seconds of simulation each."""
        return tasks * (self.per_task + max(seconds, self.least_s) / 60 * self.per_minute) + shots * self.per_shot

    def __str__(self) -> str:
        parts = {"a task": self.per_task, "a shot": self.per_shot, "a minute": self.per_minute}
        least = f", at least {self.least_s:g} s a task" if self.least_s else ""
        note = f" ({self.note})" if self.note else ""
        return " + ".join(f"${usd:.10g} {unit}" for unit, usd in parts.items() if usd) + least + note or "free"


@dataclass(frozen=True)
class Device:
    """An entry of the list of devices.

    Args:
        name: in this package, plugin: in PennyLane; empty for our own engine.
        package: the distribution that brings it.
        arn: Amazon's name of a remote device; empty for one that runs here.
        shots: measurements per circuit where the slides or the device need some; 0 is exact.
    """

    name: str
    title: str
    plugin: str = ""
    package: str = "hqnn-utils"
    arn: str = ""
    shots: int = 0
    price: Price = field(default_factory=Price)

    @property
    def remote(self) -> bool:
        """Whether its circuits leave this machine."""
        return bool(self.arn)

    @property
    def region(self) -> str:
        """The AWS region that a processor stands in; empty where it is served in all."""
        return self.arn.split(":")[3] if self.arn else ""


class State(NamedTuple):
    """Whether a device can be used here and now, and why not; `why` is a sentence or empty."""

    installed: bool
    usable: bool
    why: str = ""


@cache
def listed() -> dict[str, Device]:
    """Every device of `data/devices.toml`, by name."""
    described = table("devices.toml").items()
    return {name: Device(name, **entry | {"price": Price(**entry.get("price", {}))}) for name, entry in described}


ARN = re.compile(r"arn:aws:braket:([a-z0-9-]*)::device/(qpu|quantum-simulator)/[\w-]+/[\w-]+")


def device(name: str, arn: str = "") -> Device:
    """A device by name; with an ARN, another one of its kind.

    Raises:
        DeviceError: an unknown name, or an ARN that is not one of a Braket device.
    """
    if name not in listed():
        raise DeviceError(f"unknown device {name!r}: choose one of {', '.join(listed())}")
    found = listed()[name]
    if not arn or arn == found.arn:
        return found
    if not found.remote:
        raise DeviceError(f"{name} runs on this machine and has no ARN, got {arn!r}")
    if not ARN.fullmatch(arn):
        raise DeviceError(
            f"{arn!r} is not the ARN of a Braket device, which reads like {found.arn!r}: look it up in the list of devices "
            "of the Braket console"
        )
    if ARN.fullmatch(arn)[2] != ARN.fullmatch(found.arn)[2]:
        raise DeviceError(f"{arn!r} does not take the place of {name}, which is a {ARN.fullmatch(found.arn)[2]}")
    price = (
        replace(found.price, note="of another device; this one is asked for its own") if found.price.per_shot else found.price
    )
    return replace(found, arn=arn, title=arn.rpartition("device/")[2], price=price)


def state(device: Device) -> State:
    """Whether a device can be used here; of a remote one this asks its service, and waits for seconds at most."""
    try:
        version(device.package)
    except PackageNotFoundError:
        return State(False, False, f"not installed: {install_command(device)}")
    why = _aws_refusal(device) if device.remote else _refusal(device)
    return State(True, not why, why)


def install_command(device: Device) -> str:
    """What installs the device."""
    return f'pip install "{device.package}"'


def _refusal(device: Device) -> str:
    """Why a device of this machine does not answer to the smallest circuit; empty if it does."""
    if not device.plugin:
        return ""
    try:
        node = qml.QNode(_one, connect(device, 1), interface=None)
        (qml.set_shots(node, device.shots) if device.shots else node)()
    except Exception as error:  # whatever a plugin may raise is the answer here
        return f"{type(error).__name__}: {error}"
    return ""


def _one():
    qml.Hadamard(0)
    return qml.expval(qml.Z(0))


CONNECT_S, READ_S = 3.0, 5.0
"""How many seconds a service of AWS is waited for when it is only asked whether it is there."""


def aws_client(service: str, region: str):
    """A client of an AWS service that gives up after seconds; botocore's own would wait for minutes."""
    import boto3
    from botocore.config import Config

    limits = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1})
    address = os.environ.get("BRAKET_ENDPOINT") if service == "braket" else None  # where Braket's own software looks
    return boto3.Session(region_name=region or None).client(service, config=limits, endpoint_url=address)


def reason(error) -> str:
    """What AWS says of a request that it refused, without the number of the account."""
    told = error.response["Error"]
    return f"{told['Code']}: {re.sub(ACCOUNT, NOBODY, told.get('Message') or 'it gives no reason')}"


ACCOUNT, NOBODY = r"(?<!\d)\d{12}(?!\d)", "0" * 12
"""What may be the number of an account, and what stands in its place."""


def _aws_refusal(device: Device) -> str:
    """Why a remote device cannot be used."""
    import boto3
    from botocore import exceptions as aws

    if wrong := _wrong_address():
        return wrong
    try:
        session = boto3.Session()
        if not (device.region or session.region_name):
            return "no AWS region is set: set AWS_DEFAULT_REGION, e.g. to us-east-1"
        if session.get_credentials() is None:
            return "no AWS credentials are found: run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        answer = aws_client("braket", device.region).get_device(deviceArn=device.arn)
    except aws.ClientError as error:
        meaning = {
            "ResourceNotFoundException": "there is no such device (any more): give the ARN of a current one",
            "AccessDeniedException": "these credentials may not use Braket: give them the policy AmazonBraketFullAccess",
            "UnrecognizedClientException": "these credentials are not known to AWS: set current ones",
            "ExpiredTokenException": "these credentials have expired: log in again",
        }
        return meaning.get(error.response["Error"]["Code"], f"AWS refused with {reason(error)}")
    except aws.ProfileNotFound:
        return "AWS_PROFILE names a profile that is not configured: unset it, or run `aws configure --profile …`"
    except (aws.HTTPClientError, aws.ConnectionError):
        return "AWS did not answer: is this machine connected to the network, or an AWS_ENDPOINT_URL set?"
    except (aws.BotoCoreError, ValueError) as error:
        return f"the AWS settings of this machine are not usable ({error}): run `aws configure`"
    status = answer["deviceStatus"]
    return "" if status == "ONLINE" else f"the device is {status}: try again later, or give the ARN of another one"


def _wrong_address() -> str:
    """Which of the addresses that AWS's software is told to use is none; it would say so late, or with a traceback."""
    for name, address in os.environ.items():
        if address and name.startswith(("AWS_ENDPOINT_URL", "BRAKET_ENDPOINT")):
            with suppress(ValueError):
                parts = urlsplit(address)
                if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                    continue
            return f"{name}={address!r} is no address: it reads like https://HOST:PORT, or is left out"
    return ""


def connect(device: Device, n_qubits: int, *, one_by_one: bool = False, budget=None, **options) -> qml.devices.Device | str:
    """PennyLane's device, ready to be the `simulator` of a layer.

    Args:
        device: of the list; our own engine is no PennyLane device, and its name is returned.
        n_qubits: its wires.
        one_by_one: send a device that takes batches one circuit after another, as all others are sent.
        budget: an open `budget.Budget` for this device, without which nothing remote is opened.
        options: for the plugin, e.g. `max_parallel` of Braket's.

    Raises:
        DeviceError: a remote device without a budget of its own, or an option that would go around it.
    """
    if not device.plugin:
        return device.name
    options = _within(budget, device) | _harmless(options) if device.remote else options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Qiskit's, about itself
        backend = qml.device(device.plugin, wires=n_qubits, **options)
    if device.plugin == "qiskit.aer":
        _transpile_once(backend)
    if device.remote:
        # A layer without shots would send the plugin's own thousand; and the plugin minds only one limit of a set.
        backend._shots = qml.measurements.Shots(None)
        if backend._max_program_set_executables is not None:
            backend._max_program_set_executables = budget.at_once
    return qml.transforms.broadcast_expand(backend) if one_by_one else backend


def _within(budget, device: Device) -> dict:
    """Braket's options for a device that is paid from a budget."""
    if budget is None or budget.session is None:
        raise DeviceError(f"{device.name} may cost money: open it within a `budget.Budget`")
    if budget.device.arn != device.arn:
        raise DeviceError(f"this budget is for {budget.device.name}, not for {device.name}: open one for each device")
    return dict(aws_session=budget.session, device_arn=device.arn, parallel=True)


def _harmless(options: dict) -> dict:
    if taken := options.keys() & {"aws_session", "session", "device_arn", "shots"}:
        raise DeviceError(
            f"{', '.join(sorted(taken))} cannot be set here: account and device are the budget's, shots the layer's"
        )
    # As many threads as circuits on their way: the SDK's hundred would fight for Python's lock.
    return {"max_connections": options.get("max_parallel", 10)} | options


def _transpile_once(backend) -> None:
    """Give Aer's plugin one pass manager: it would ask the backend for its gates anew, 150 times a circuit."""
    from qiskit.transpiler import generate_preset_pass_manager

    plugin = backend.target_device
    passes = generate_preset_pass_manager(0, backend=plugin.backend)
    plugin.compile = lambda: passes.run(plugin._circuit)


def noisy(backend: qml.devices.Device, one: float = 0.001, two: float = 0.01, readout: float = 0.03) -> qml.devices.Device:
    """default.mixed with noise as a processor's is often summed up: depolarising gates, and bits that are read wrongly.

    Args:
        backend: a device that knows channels.
        one, two: probability of an error behind a gate of one qubit, or of each qubit behind a gate of two, in [0, 1].
        readout: probability that a measured bit is the wrong one, in [0, 1]; it shrinks ⟨Z⟩ by a factor of 1 - 2 readout.

    Source: Nielsen and Chuang, sec. 8.3.
    """

    def depolarised(op, *, probability, **_):
        for wire in op.wires:
            qml.DepolarizingChannel(probability, wire)

    gates = {(qml.Hadamard, qml.RY): one, (qml.CNOT,): two}
    model = qml.NoiseModel({qml.noise.op_in(list(ops)): partial(depolarised, probability=p) for ops, p in gates.items()})
    return _misread(qml.add_noise(backend, model), readout)


@qml.transform
def _misread(tape, probability: float):
    """Every measured bit flipped with a probability; default.mixed's own option for it fails on ⟨Z⟩ of several qubits."""
    flips = [qml.BitFlip(probability, wire) for wire in tape.wires]
    return [tape.copy(operations=[*tape.operations, *flips])], lambda results: results[0]
