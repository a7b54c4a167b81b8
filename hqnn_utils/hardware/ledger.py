"""A record of circuits that were paid for: which were sent, what became of them, and their results.

Only a task's own id is written down. The rest of its name holds an account number, which belongs in no file.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from hqnn_utils import files

UNPAID = ("FAILED", "CANCELLED")
"""States of a task for which Braket bills nothing, as its own cost tracker counts."""


@dataclass
class PaidTask:
    """A circuit, or a set of them, that was sent.

    Args:
        id: the last part of Braket's name of the task; the rest holds an account number, which is never written down.
        key: of what was sent, as `session.identity`. number: of the tasks with this key in the record.
        run: what it was sent for. region: of AWS. circuits: how many it holds.
        status: Braket's. usd: billed, as far as known. seconds: from sent to ended, by Braket's clock.
        sha256: of the result, once it is kept.
    """

    id: str
    key: str
    number: int
    run: str = ""
    region: str = ""
    circuits: int = 1
    status: str = "CREATED"
    usd: float | None = None
    seconds: float | None = None
    sha256: str = ""


TEXTS, COUNTS, AMOUNTS = {"key", "run", "region", "status", "sha256"}, {"number", "circuits"}, {"usd", "seconds"}


class Record:
    """Tasks in a file of JSON lines, appended to as things happen; results in a folder beside it, one file a task.

    What is written is on the disk before anything else happens. A line or a field that is not what it should be is left out,
    and left where it is; the task that a lost line told of is found again by its token. A result that is not whole counts as
    not kept.

    Args:
        path: the file, `*.jsonl`, made if it is not there; a folder of the same name without the ending holds the results.

    Raises:
        ValueError: a path that does not end in `.jsonl`, or goes up with `..`.
    """

    def __init__(self, path: Path):
        if path.suffix != ".jsonl" or ".." in path.parts:
            raise ValueError(f"a record is a file NAME.jsonl, its folder named without `..`, got {str(path)!r}")
        self.path, self.results = path, path.with_suffix("")
        self.tasks: dict[str, PaidTask] = {}
        self.name = ""
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            self._read(_fields(line))
        self.results.mkdir(parents=True, exist_ok=True)
        if not self.name:
            self._append(record=uuid4().hex)
            files.sync(path.parent)

    def _read(self, fields: dict) -> None:
        if "record" in fields:
            self.name = self.name or fields["record"]
        elif (id := fields.get("id", "")) in self.tasks:
            vars(self.tasks[id]).update(fields)
        elif fields.keys() >= {"id", "key", "number"}:
            self.tasks[id] = PaidTask(**fields)

    def _append(self, **fields: object) -> None:
        line = json.dumps({name: value for name, value in fields.items() if value is not None}).encode() + b"\n"
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._read(_fields(line))

    def add(self, task: PaidTask) -> None:
        """Write down a task that was sent."""
        self._append(**asdict(task))

    def note(self, id: str, **fields: Any) -> None:
        """Write down what has changed about a task; nothing if nothing has."""
        if any(getattr(self.tasks[id], name) != value for name, value in fields.items()):
            self._append(id=id, **fields)

    def keep(self, id: str, result: str, **fields: Any) -> None:
        """Keep the result of a task, whole or not at all, and then note it, with what else has changed about the task."""
        files.write(self.results / f"{id}.json", result)
        self.note(id, sha256=hashlib.sha256(result.encode()).hexdigest(), **fields)

    def result(self, id: str) -> str | None:
        """The kept result of a task; `None` if there is none, or it is not the whole of what was kept."""
        noted = self.tasks[id].sha256 if id in self.tasks else ""
        try:
            found = (self.results / f"{id}.json").read_bytes()
            whole = hashlib.sha256(found).hexdigest() == noted if noted else isinstance(json.loads(found), dict)
            return found.decode() if whole else None
        except (OSError, ValueError, RecursionError):
            return None

    def token(self, key: str, number: int) -> str:
        """By which a service knows a request again: the same in every run, whatever became of the answer."""
        return hashlib.sha256(f"{self.name} {key} {number}".encode()).hexdigest()


def _fields(line: bytes) -> dict:
    """What a line says that can be what it should be."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in fields.items() if _sound(name, value)} if isinstance(fields, dict) else {}


def _sound(name: str, value: Any) -> bool:
    if name in ("id", "record"):  # which names a file
        return isinstance(value, str) and bool(re.fullmatch(r"[\w-]{1,100}", value))
    if name in TEXTS:
        return isinstance(value, str)
    kinds = (int,) if name in COUNTS else (int, float) if name in AMOUNTS else ()
    return type(value) in kinds and 0 <= value < 1e12  # no bool, no NaN, no inf
