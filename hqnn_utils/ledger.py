"""A record of circuits that were paid for: which were sent, what became of them, and their results.

Only a task's own id is written down. The rest of its name holds an account number, which belongs in no file.
"""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


@dataclass
class Task:
    """A circuit that was sent.

    Args:
        id: the last part of Braket's name of the task; the rest holds an account number, which is never written down.
        key: of the circuit, its device and its shots. number: of the tasks with this key in the record.
        status: Braket's. usd: billed, as far as known. seconds: from sent to ended, by Braket's clock.
    """

    id: str
    key: str
    number: int
    status: str = "CREATED"
    usd: float = 0.0
    seconds: float | None = None


class Record:
    """Tasks in a file of JSON lines, appended to as things happen; results in a folder beside it, one file a task.

    A line that cannot be read, e.g. cut off by a crash, is left out; the task it told of is found again by its token.

    Args:
        path: the file, made if it is not there; a folder of the same name holds the results.
    """

    def __init__(self, path: Path):
        self.path, self.results = path, path.with_suffix("")
        self.tasks: dict[str, Task] = {}
        self.taken: dict[str, set[int]] = {}
        self.name = ""
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with suppress(json.JSONDecodeError):
                self._read(json.loads(line))
        self.results.mkdir(parents=True, exist_ok=True)
        if not self.name:
            self._append(record=uuid4().hex)

    def _read(self, fields: dict) -> None:
        if "record" in fields:
            self.name = fields["record"]
        elif fields["id"] in self.tasks:
            vars(self.tasks[fields["id"]]).update(fields)
        elif fields.keys() >= {"key", "number"}:
            task = self.tasks[fields["id"]] = Task(**fields)
            self.taken.setdefault(task.key, set()).add(task.number)

    def _append(self, **fields) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            ended = file.tell() == 0 or self.path.read_bytes().endswith(b"\n")
            file.write(("" if ended else "\n") + json.dumps(fields) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._read(fields)

    def add(self, task: Task) -> None:
        """Write down a task that was sent."""
        self._append(**vars(task))

    def note(self, id: str, **fields) -> None:
        """Write down what has changed about a task; nothing if nothing has."""
        if any(getattr(self.tasks[id], name) != value for name, value in fields.items()):
            self._append(id=id, **fields)

    def keep(self, id: str, result: str) -> None:
        """Keep the result of a task, whole or not at all."""
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.results, delete=False) as file:
            file.write(result)
        os.replace(file.name, self.results / f"{id}.json")

    def result(self, id: str) -> str | None:
        """The kept result of a task, or `None`."""
        file = self.results / f"{id}.json"
        return file.read_text(encoding="utf-8") if file.exists() else None

    def token(self, key: str) -> tuple[int, str]:
        """The number for a new task with a key, and a token by which a service knows the task again.

        The first task of a circuit in a record has always the same token, and so has the second: if the answer to a request
        is lost, the same run, started again, asks with the same token, and gets the same task.
        """
        taken = self.taken.setdefault(key, set())
        number = next(n for n in range(len(taken) + 1) if n not in taken)
        taken.add(number)
        return number, hashlib.sha256(f"{self.name} {key} {number}".encode()).hexdigest()

    @property
    def usd(self) -> float:
        """What all tasks cost."""
        return sum((task.usd for task in self.tasks.values()), 0.0)
