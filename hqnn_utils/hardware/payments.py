"""What a run has paid for: each circuit once, within a budget, and written down before anything else happens."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from botocore.exceptions import ClientError

from hqnn_utils.hardware.budget import Budget
from hqnn_utils.hardware.devices import DeviceError
from hqnn_utils.hardware.ledger import UNPAID, PaidTask, Record


class Payments:
    """Each circuit is paid for once: what the record has is found again, and anything else is sent within a budget.

    Args:
        record: of what was sent. budget: with the tasks of this record.
        run: what is computed.

    Attributes:
        sent, found: number of tasks that were paid for, and of those that an earlier run had paid for.
        failures: why tasks failed.
    """

    def __init__(self, record: Record, budget: Budget, run: str):
        self.record, self.budget, self.run = record, budget, run
        self.lock = threading.RLock()
        self.sent, self.found = 0, 0
        self.failures: list[str] = []
        for task in record.tasks.values():
            self._complete(task)
        self.waiting = [task for task in record.tasks.values() if task.status not in UNPAID]

    def _complete(self, task: PaidTask) -> None:
        """Note what a task cost whose end or whose price the record does not tell, as after a kill."""
        result = self.record.result(task.id)
        if result is not None and task.status != "COMPLETED":
            usd = self.budget.billed(task.circuits, _simulated_s(result))
            self.record.note(task.id, status="COMPLETED", usd=usd)
        elif task.usd is None and task.status not in UNPAID:
            self.record.note(task.id, usd=self.budget.cost(task.circuits))

    def once(self, key: str, circuits: int, region: str, send: Callable[[str], str]) -> str:
        """The id of the task for a request: of one that was paid for before, else of a new one, if the budget allows it.

        Args:
            key: of the request, as `session.identity`. circuits: in it. region: of AWS.
            send: sends it with a token, by which the service knows it again, and gives the id of its task.
        """
        with self.lock:
            if known := next((task for task in self.waiting if task.key == key), None):
                self.waiting.remove(known)
                self.found += 1
                return known.id
            number = self.budget.reserve(key, circuits)
        try:
            id = send(self.record.token(key, number))
            with self._writing():
                task = PaidTask(id, key, number, self.run, region, circuits, usd=self.budget.reserved[key, number])
                self.record.add(task)
                self.budget.settle(key, number)
                self.sent += 1
        except ClientError:  # a refusal; a task whose answer was lost may be there, and stays on its way
            with self.lock:
                self.budget.settle(key, number)
            raise
        finally:
            with self.lock:
                self.budget.landed(key, number)
        return id

    @property
    def usd(self) -> float:
        """USD spent so far with this record."""
        with self.lock:
            return self.budget.spent

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock:
            try:
                yield
            except OSError as error:
                raise DeviceError(f"{self.record.path} cannot be written: {error.strerror}") from None

    def fail(self, id: str, status: str, why: str) -> None:
        """Write down that a task ended without a result, and costs nothing.

        Raises:
            DeviceError: someone cancelled it: it is not sent again by itself.
        """
        with self._writing():
            if id in self.record.tasks:
                self.record.note(id, status=status, usd=0.0)
                self.failures += [f"FAILED ({why})"] if status == "FAILED" else []
        if status == "CANCELLED":
            raise DeviceError(f"task {id} was CANCELLED, by someone with access to this account")

    def keep(self, id: str, result: str, seconds: float) -> None:
        """Keep a result, with what the task took and cost."""
        with self._writing():
            usd = self.budget.billed(self.record.tasks[id].circuits, _simulated_s(result))
            self.record.keep(id, result, status="COMPLETED", usd=usd, seconds=seconds)

    def summary(self) -> str:
        """What is spent and kept, for the end of a message."""
        tasks = self.record.tasks
        if not tasks:
            return ". Nothing was sent"
        done = sum(self.record.result(id) is not None for id in tasks)
        return (
            f". ${self.budget.spent:.2f} are spent; {len(tasks)} tasks and {done} results are kept in {self.record.path}: the "
            "same run, started again, goes on from there and does not pay for them again"
        )


def _simulated_s(result: str) -> float:
    """Seconds that Braket bills for a result; 0 for that of a processor."""
    simulator = (json.loads(result).get("additionalMetadata") or {}).get("simulatorMetadata") or {}
    return simulator.get("executionDuration", 0) / 1000
