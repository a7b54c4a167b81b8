"""The devices a circuit can run on: what they are, whether they can be used here, what they cost, and a way in.

All of them are PennyLane devices but the first, this package's own engine. What stands in `data/devices.toml` is data; prices
there are those of the source it names, and a device that can be asked gives its own.
"""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple
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

    def __post_init__(self) -> None:
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


class Availability(NamedTuple):
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
    kind = ARN.sub(r"\2", found.arn)
    if ARN.sub(r"\2", arn) != kind:
        raise DeviceError(f"{arn!r} does not take the place of {name}, which is a {kind}")
    note = "of another device; this one is asked for its own" if found.price.per_shot else ""
    return replace(found, arn=arn, title=arn.rpartition("device/")[2], price=replace(found.price, note=note))


def availability(device: Device) -> Availability:
    """Whether a device can be used here; of a remote one this asks its service, and waits for seconds at most."""
    try:
        version(device.package)
    except PackageNotFoundError:
        return Availability(False, False, f'not installed: pip install "{device.package}"')
    why = _aws_refusal(device) if device.remote else _refusal(device)
    return Availability(True, not why, why)


def named(names: Sequence[str], found: Mapping[str, Availability]) -> list[str]:
    """The devices of this machine that are asked for; for "any", all of the list that can be used.

    Raises:
        DeviceError: one that is asked for cannot be used, or is no device of this machine.
    """
    local = [name for name, entry in listed().items() if not entry.remote]
    for name in names if "any" not in names else []:
        if name not in local:
            raise DeviceError(f"{name!r} is no device of this machine: choose any, or of {', '.join(local)}")
        if not found[name].usable:
            raise DeviceError(f"{name} cannot be used here: {found[name].why}; leave it out, or choose any")
    return [name for name in local if name in names or ("any" in names and found[name].usable)]


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


def _one() -> Any:
    qml.Hadamard(0)
    return qml.expval(qml.Z(0))


CONNECT_S, READ_S = 3.0, 5.0
"""How many seconds a service of AWS is waited for when it is only asked whether it is there."""


def braket_client(region: str) -> Any:
    """A client of Braket that gives up after seconds; botocore's own would wait for minutes."""
    import boto3
    from botocore.config import Config

    limits = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1})
    address = os.environ.get("BRAKET_ENDPOINT")  # where Braket's own software looks
    return boto3.Session(region_name=region or None).client("braket", config=limits, endpoint_url=address)


def reason(error: Any) -> str:
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
        answer = braket_client(device.region).get_device(deviceArn=device.arn)
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


def connect(
    device: Device, n_qubits: int, *, one_by_one: bool = False, run: Any = None, **options: Any
) -> qml.devices.Device | str:
    """PennyLane's device, ready to be the `simulator` of a layer.

    Args:
        device: of the list; our own engine is no PennyLane device, and its name is returned.
        n_qubits: its wires.
        one_by_one: send a device that takes batches one circuit after another, as all others are sent.
        run: an open `paid.PaidRun` for this device, without which nothing remote is opened.
        options: for the plugin, e.g. `max_parallel` of Braket's.

    Raises:
        DeviceError: a remote device without a run of its own, or an option that would go around it.
    """
    if not device.plugin:
        return device.name
    options = _within(run, device, options) if device.remote else options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Qiskit's, about itself
        backend = qml.device(device.plugin, wires=n_qubits, **options)
    if device.plugin == "qiskit.aer":
        _transpile_once(backend)
    if device.remote:
        # A layer without shots would send the plugin's own thousand; and the plugin minds only one limit of a set.
        backend._shots = qml.measurements.Shots(None)
        if backend._max_program_set_executables is not None:
            backend._max_program_set_executables = run.at_once
    return qml.transforms.broadcast_expand(backend) if one_by_one else backend


def _within(run: Any, device: Device, options: dict) -> dict:
    """Braket's options for a device that is paid for from a run's budget."""
    if run is None:
        raise DeviceError(f"{device.name} may cost money: open it with `paid.within_budget`")
    if run.device.arn != device.arn:
        raise DeviceError(f"this budget is for {run.device.name}, not for {device.name}: open one for each device")
    if taken := ", ".join(sorted(options.keys() & {"aws_session", "session", "device_arn", "shots"})):
        raise DeviceError(f"{taken} cannot be set here: account and device are the budget's, shots the layer's")
    # As many threads as circuits on their way: the SDK's hundred would fight for Python's lock.
    threads = {"max_connections": options.get("max_parallel", 10)}
    return dict(aws_session=run.session, device_arn=device.arn, parallel=True) | threads | options


def _transpile_once(backend: Any) -> None:
    """Give Aer's plugin one pass manager: it would ask the backend for its gates anew, 150 times a circuit."""
    from qiskit.transpiler import generate_preset_pass_manager

    plugin = backend.target_device
    passes = generate_preset_pass_manager(0, backend=plugin.backend)
    plugin.compile = lambda: passes.run(plugin._circuit)
