"""A budget for circuits that are paid for: what they will cost, what is set aside, and what is left. Nothing is sent here.

Shown in book/experiments/device_costs; `paid.within_budget` holds one against every circuit of a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from typing import NamedTuple

from hqnn_utils.hardware.devices import DeviceError, Price
from hqnn_utils.hardware.ledger import PaidTask

ROUNDING = 1e-9
"""USD by which sums of prices may differ that are the same."""


class BudgetError(DeviceError):
    """What would be paid, or a switch that is not set, stands against running; nothing beyond the budget was sent."""


class Estimate(NamedTuple):
    """What a run sends in all, and what it costs: tasks at most, the circuits in them, shots of each; USD before.

    What the record has of these circuits is neither sent nor paid for again; which these are shows when they are asked for.
    """

    tasks: int
    circuits: int
    shots: int
    usd: float
    before: float = 0.0

    def __str__(self) -> str:
        shots = f" of {self.shots:,} shots" if self.shots else ""
        text = f"{self.circuits:,} circuits{shots} in {self.tasks:,} tasks for about ${self.usd:.2f}"
        before = f"; ${self.before:.2f} were spent before, and what the record has of them is not paid again"
        return text + before if self.before else text


def estimate(
    price: Price, circuits: int, batches: int, shots: int = 0, at_once: int = 1, simulation_s: float = 0.0, before: float = 0.0
) -> Estimate:
    """What circuits will cost, at most.

    Args:
        price: of the device.
        circuits: in so many batches, of whatever sizes, each with so many shots.
        at_once: circuits that the device takes as one task.
        simulation_s: seconds that a simulation is taken to last.
        before: USD that were spent already.
    """
    tasks = min(circuits, (circuits + batches * (at_once - 1)) // at_once)
    return Estimate(tasks, circuits, shots, price.of(tasks, circuits * shots, simulation_s), before)


@dataclass
class Budget:
    """A sum, and what counts against it: what was spent, and what is set aside for circuits on their way.

    Args:
        limit: USD.
        price: of the device. shots: of each circuit.
        tasks: all that were sent, by id, with what they cost as far as known; looked at anew each time.
        simulation_s: seconds that a simulation is taken to last which has not ended; the longest so far if that is more.
    """

    limit: float
    price: Price
    shots: int
    tasks: Mapping[str, PaidTask]
    simulation_s: float = 0.0
    reserved: dict[tuple[str, int], float] = field(default_factory=dict)
    flying: set[tuple[str, int]] = field(default_factory=set)

    @property
    def spent(self) -> float:
        """USD, with what tasks are taken to cost that have not ended."""
        return fsum(task.usd or 0.0 for task in self.tasks.values())  # of a hundred prices, to the cent

    def cost(self, circuits: int) -> float:
        """USD that a task is taken to cost until it has ended; a simulation, as much as the longest so far."""
        longest = max((task.usd or 0.0 for task in self.tasks.values()), default=0.0) if self.price.per_minute else 0.0
        return max(self.billed(circuits, self.simulation_s), longest)

    def billed(self, circuits: int, seconds: float) -> float:
        """USD for a task with so many circuits, which was simulated for so many seconds."""
        return self.price.of(1, circuits * self.shots, seconds)

    def admit(self, device: str, run: str, expected: Estimate) -> None:
        """Let a run on a device begin, of whose estimate its own tasks are a part.

        Raises:
            BudgetError: the estimate, with what was spent for other runs, exceeds the sum.
        """
        own = fsum(task.usd or 0.0 for task in self.tasks.values() if task.run == run)
        if self.spent - own + max(own, expected.usd) > self.limit + ROUNDING:
            raise BudgetError(
                f"{device}: {expected} would exceed the budget of ${self.limit:.2f}; nothing was sent. "
                "Allow more, or send less: fewer steps, a smaller batch, fewer shots"
            )

    def reserve(self, key: str, circuits: int) -> int:
        """Set aside what one more task costs; gives its number among those with the same key.

        A task whose answer was lost keeps its number and its money, and has both when it is asked for again.

        Raises:
            BudgetError: that would exceed the sum.
        """
        taken = {task.number for task in self.tasks.values() if task.key == key} | {n for k, n in self.flying if k == key}
        number, cost = next(n for n in range(len(taken) + 1) if n not in taken), self.cost(circuits)
        others = self.spent + sum(usd for task, usd in self.reserved.items() if task != (key, number))
        if others + cost > self.limit + ROUNDING:
            raise BudgetError(
                f"stopped before the budget of ${self.limit:.2f} was passed: ${others:.2f} are spent or on their way, "
                f"and one more task costs about ${cost:.4f}"
            )
        self.reserved[key, number] = cost
        self.flying.add((key, number))
        return number

    def settle(self, key: str, number: int) -> None:
        """Nothing is set aside any more: the task is one of `tasks`, or was refused."""
        self.reserved.pop((key, number))

    def landed(self, key: str, number: int) -> None:
        """Nobody waits for an answer to this request any more."""
        self.flying.discard((key, number))
