"""A budget for circuits on remote devices: what may be sent, what was, and nothing twice.

Nothing paid runs by itself: a `Budget` wants consent, credentials and a sum, estimates the cost before anything is sent, and
is asked again before every circuit. Each circuit that was sent is written down, with its result as soon as there is one; a run
that was stopped, for whatever reason, finds both again and pays for neither. Once this module is imported, its process sends
nothing to Braket but from an open budget. Shown in book/experiments/device_timing.
"""

import json
import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore import exceptions as aws
from braket.tracking.pricing import price_search
from filelock import FileLock, Timeout

from hqnn_utils import files
from hqnn_utils.hardware.devices import Device, DeviceError, Price, reason, state
from hqnn_utils.hardware.ledger import PaidTask, Record
from hqnn_utils.hardware.session import PROGRAM_SET, UNPAID, BudgetError, Session, canonical, executables, identity

LOCK_S = 5.0
"""How long a record is waited for that another process uses: a kernel outlives its killed parent by a second."""


class Estimate(NamedTuple):
    """What a run sends in all, and what it costs: tasks at most, the circuits in them, shots of each; and USD spent before it.

    What the record has of these circuits is neither sent nor paid for again; which these are shows when they are asked for.
    """

    tasks: int
    circuits: int
    shots: int
    usd: float
    before: float

    def __str__(self) -> str:
        shots = f" of {self.shots:,} shots" if self.shots else ""
        before = f"; ${self.before:.2f} were spent before, and what the record has of them is not paid again"
        before = before if self.before else ""
        return f"{self.circuits:,} circuits{shots} in {self.tasks:,} tasks for about ${self.usd:.2f}{before}"


class Budget:
    """A context in which one remote device can be used, up to a sum.

    Args:
        device: a remote one.
        usd: what may be spent, with what earlier runs with the same record have spent.
        circuits: how many the run will send in all, in so many batches.
        shots: of each circuit, as the layer measures it; by default as the list of devices says. Others are not sent.
        record: the file that the tasks are written to, and found in again; as for `ledger.Record`.
        run: what the run computes, where a record serves several. What was spent for other runs, devices or numbers of shots
            comes on top of the estimate.
        simulation_s: what a simulation is taken to last that has not ended; the longest so far if that is more.
        paid: consent. Without `True` itself nothing is asked and nothing sent.

    Attributes:
        session: for Braket's own software. at_once: how many circuits the device takes as one task.
        estimate: of this run.
        sent, found: number of tasks that were paid for, and of those that an earlier run had paid for.

    Raises:
        BudgetError: at the start, without consent, without a sum, or if the estimate exceeds it; later, before the circuit
            that would exceed it, or that is not what the budget is for.
        DeviceError: at the start, if the device or the record cannot be used; later, if a task fails or is cancelled, is still
            queued when the plugin gives up, the connection is lost, or a result is missing. The message says what is kept.
    """

    def __init__(
        self,
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
    ):
        self.device, self.limit, self.paid = device, usd, paid
        self.circuits, self.batches, self.path = circuits, batches, Path(record)
        self.shots = device.shots if shots is None else shots
        self.simulation_s = simulation_s
        self.run = f"{device.arn}, {self.shots} shots: {run}"
        self.lock = threading.RLock()
        self.session: Session | None = None
        self.is_open, self.sent, self.found, self.account = False, 0, 0, ""
        self.pending: dict[tuple[str, int], float] = {}
        self.flying: set[tuple[str, int]] = set()
        self.failures: list[str] = []

    def __enter__(self) -> "Budget":
        self._agree()
        if not (now := state(self.device)).usable:
            raise DeviceError(f"{self.device.name} cannot be used: {now.why}")
        self._take_record()
        try:
            with _told():
                self._open()
        except BaseException:
            self.alone.release()
            raise
        return self

    def _agree(self) -> None:
        costs = f"{self.device.name} costs money ({self.device.price})"
        if self.paid is not True:
            raise BudgetError(f"{costs}: set paid=True, and a sum, to use it; got paid={self.paid!r}")
        if not (0 < self.limit < math.inf):
            raise BudgetError(f"{costs}: set a sum above $0 that has an end, got {self.limit}")
        if not (0 < self.batches <= self.circuits and self.shots >= 0 and 0 <= self.simulation_s < math.inf):
            raise BudgetError(
                f"a run has circuits in batches, shots and seconds that are not negative, got circuits={self.circuits}, "
                f"batches={self.batches}, shots={self.shots}, simulation_s={self.simulation_s}"
            )

    def _take_record(self) -> None:
        """The record, for this process alone."""
        self.alone = FileLock(self.path.with_suffix(".lock"), timeout=LOCK_S)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.alone.acquire()
            self.record = Record(self.path)
        except Timeout:
            raise DeviceError(f"another run is using {self.path}: wait for it, or name another record") from None
        except (OSError, ValueError) as error:
            self.alone.release()
            raise DeviceError(f"{self.path} cannot be the record: {error}") from None
        self.mark = os.stat(self.alone.lock_file).st_ino
        self.process = os.getpid()
        self.parent = os.getppid() if os.environ.get("JPY_PARENT_PID") == str(os.getppid()) else None  # of a kernel

    def _open(self) -> None:
        kept = list(self.record.tasks.values())
        region = self.device.region or next((task.region for task in kept if task.region), None)
        self.session = Session(self, boto3.Session(region_name=region))
        self.price, self.at_once = _terms(self.device, self.session, self.shots)
        for task in kept:
            self._settle(task)
        self.unused = [task for task in kept if task.status not in UNPAID]
        self.estimate = self._estimated()
        own = sum(task.usd or 0.0 for task in kept if task.run == self.run)
        if self.usd - own + max(own, self.estimate.usd) > self.limit + 1e-9:
            raise BudgetError(
                f"{self.device.name}: {self.estimate} would exceed the budget of ${self.limit:.2f}; nothing was sent. "
                "Allow more, or send less: fewer steps, a smaller batch, fewer shots"
            )
        self.is_open = True

    def _settle(self, task: PaidTask) -> None:
        """Note what a task cost whose end or whose price the record does not tell, as after a kill."""
        result = self.record.result(task.id)
        if result is not None and task.status != "COMPLETED":
            self.record.note(task.id, status="COMPLETED", usd=self._billed(task, result))
        elif task.usd is None and task.status not in UNPAID:
            self.record.note(task.id, usd=self._cost(task.circuits))

    def _estimated(self) -> Estimate:
        tasks = (self.circuits + self.batches * (self.at_once - 1)) // self.at_once  # at most: batches may be of any sizes
        tasks, shots = min(tasks, self.circuits), self.circuits * self.shots
        return Estimate(tasks, self.circuits, self.shots, self.price.of(tasks, shots, self.simulation_s), self.usd)

    def __exit__(self, kind, error, trace) -> None:
        if os.getpid() != self.process:  # a forked copy leaves: the record is not its own
            return
        if error is not None and not isinstance(error, LOST):
            with suppress(Exception):  # the error that is on its way out says more than another one
                self._collect()
        self.is_open = False
        self.alone.release()
        with _told(self._kept(), self.failures):
            if error is not None:
                raise error

    def _kept(self) -> str:
        if not self.record.tasks:
            return ". Nothing was sent"
        done = sum(self.record.result(id) is not None for id in self.record.tasks)
        return (
            f". ${self.usd:.2f} are spent; {len(self.record.tasks)} tasks and {done} results are kept in {self.path}: the "
            "same run, started again, goes on from there and does not pay for them again"
        )

    @property
    def usd(self) -> float:
        """USD spent so far with this record."""
        with self.lock:
            return self.record.usd

    def create(self, request: dict[str, Any], send: Callable[..., str], session: Session) -> str:
        """The id of the task for a circuit: of one that was paid for before, else of a new one, if the budget allows it."""
        request = canonical(request)
        circuits, key = self._checked(request, session), identity(request)
        with self.lock:
            for task in self.unused:
                if task.key == key:
                    self.unused.remove(task)
                    self.found += 1
                    return task.id
            number, cost = self._reserved(key, circuits)
        try:
            id = send(**request | {"clientToken": self.record.token(key, number)}).rpartition("/")[2]
            with self._writing():
                self.record.add(PaidTask(id, key, number, self.run, session.region, circuits, usd=cost))
                self.pending.pop((key, number))
                self.sent += 1
        except aws.ClientError:  # a refusal; a task whose answer was lost may be there, and stays on its way
            with self.lock:
                self.pending.pop((key, number))
            raise
        finally:
            with self.lock:
                self.flying.discard((key, number))
        return id

    @contextmanager
    def _writing(self):
        with self.lock:
            try:
                yield
            except OSError as error:
                raise DeviceError(f"{self.path} cannot be written: {error.strerror}") from None

    def _checked(self, request: dict[str, Any], session: Session) -> int:
        """The number of circuits in a request, if this is the budget for it and may still be used."""
        circuits, orphan = executables(request["action"]), self.parent and os.getppid() != self.parent
        asked = f"{request['shots']:,} shots" + (f" for {circuits:,} circuits" if circuits > 1 else "")
        wrong = {
            "this process was forked from the one that opened it: send from there": os.getpid() != self.process,
            "the program that ran this notebook is gone": orphan,
            "it is closed: open a new one to go on": not self.is_open,
            f"the lock of {self.path} was removed, and another run may use it now": not self._alone(),
            f"it is for {self.device.arn}, not for {request['deviceArn']}": request["deviceArn"] != self.device.arn,
            f"it is for {self.session.region}, not for {session.region}": session.region != self.session.region,
            f"it is for {self.shots:,} shots a circuit, and the layer asks for {asked}, 0 being exact: give both the same": (
                request["shots"] != circuits * self.shots
            ),
        }
        for why, holds in wrong.items():
            if holds:
                raise BudgetError(f"nothing can be sent from this budget: {why}")
        return circuits

    def _alone(self) -> bool:
        try:
            return os.stat(self.alone.lock_file).st_ino == self.mark
        except OSError:
            return False

    def _reserved(self, key: str, circuits: int) -> tuple[int, float]:
        """The number of a new task, and what is set aside for it."""
        cost = self._cost(circuits)
        taken = {task.number for task in self.record.tasks.values() if task.key == key}
        number = next(n for n in range(10**9) if n not in taken and (key, n) not in self.flying)
        spent = self.record.usd + sum(cost for asked, cost in self.pending.items() if asked != (key, number))
        if spent + cost > self.limit + 1e-9:
            raise BudgetError(
                f"stopped before the budget of ${self.limit:.2f} was passed: ${spent:.2f} are spent or on their way, "
                f"and one more task costs about ${cost:.4f}"
            )
        self.pending[key, number] = cost
        self.flying.add((key, number))
        return number, cost

    def _cost(self, circuits: int) -> float:
        """USD that a task is taken to cost until it has ended; a simulation, as much as the longest so far."""
        longest = max((task.usd or 0.0 for task in self.record.tasks.values()), default=0.0) if self.price.per_minute else 0.0
        return max(self.price.of(1, circuits * self.shots, self.simulation_s), longest)

    def _billed(self, task: PaidTask, result: str) -> float:
        """USD for a task that has ended."""
        simulator = (json.loads(result).get("additionalMetadata") or {}).get("simulatorMetadata") or {}
        return self.price.of(1, task.circuits * self.shots, simulator.get("executionDuration", 0) / 1000)

    def note(self, id: str, answer: dict[str, Any]) -> None:
        """Write down what Braket says of a task that ended without a result."""
        status = answer["status"]
        with self._writing():
            if status in UNPAID and id in self.record.tasks:
                self.record.note(id, status=status, usd=0.0)
                if status == "FAILED":
                    self.failures.append(f"FAILED ({answer.get('failureReason') or 'no reason given'})")
        if status == "CANCELLED":
            raise DeviceError(f"task {id} was CANCELLED, by someone with access to this account")

    def keep(self, id: str, result: str, answer: dict[str, Any]) -> None:
        """Keep a result, and what the task took and cost."""
        seconds = (answer["endedAt"] - answer["createdAt"]).total_seconds()
        with self._writing():
            usd = self._billed(self.record.tasks[id], result)
            self.record.keep(id, result, status="COMPLETED", usd=usd, seconds=seconds)

    def _collect(self) -> None:
        """Fetch the results that are ready and not kept yet."""
        for task in list(self.record.tasks.values()):
            if task.status not in UNPAID and self.record.result(task.id) is None:
                self.session.get_quantum_task(self.session.arn(task.id))


def folder(name: str) -> Path:
    """Where records are found again whatever folder a run is started in: in the checkout, else in the user's cache folder."""
    return (files.CHECKOUT or files.cache()) / name


LOST = (aws.HTTPClientError, aws.ConnectionError)


@contextmanager
def _told(kept: str = "", failures: Sequence[str] = ()):
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


def _terms(device: Device, session: Session, shots: int) -> tuple[Price, int]:
    """The device's price, and how many circuits of so many shots it takes as one task.

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
    name, found = device.arn.rpartition("/")[2], {}
    where = {"Region Code": region, "Currency": "USD"}
    products = {
        "per_task": {"DeviceName": name, "Product Family": "Quantum Task"},
        "per_shot": {"DeviceName": name, "Product Family": "Quantum Task-Shot"},
        "per_minute": {"Version": name.upper(), "Product Family": "Simulator Task", "operation": "CompleteTask"},
    }

    def fetch():
        with suppress(Exception):  # whatever is wrong with a list, there are the other prices
            for part, product in products.items():
                found[part] = max((float(entry["PricePerUnit"]) for entry in price_search(**where | product)), default=0.0)

    client = threading.Thread(target=fetch, daemon=True)
    client.start()
    client.join(seconds)
    return Price() if client.is_alive() else Price(**found)
