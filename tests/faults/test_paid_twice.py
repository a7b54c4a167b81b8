"""A paid run that is killed again and again, and started again each time as another process, pays for each circuit once.

The service is real HTTP on 127.0.0.1. `HQNN_KILLS=30` kills the documented command that often, which takes half an hour.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hqnn_utils.hardware.emulator import Service, serving
from hqnn_utils.hardware.ledger import Record
from hqnn_utils.notebooks import parameters, runs

PAID_RUN, CIRCUITS = Path(__file__).with_name("paid_run.py"), 18
KILLS = int(os.environ.get("HQNN_KILLS", 0))
BIN = Path(sys.executable).parent


def asked(service: Service) -> int:
    """How many requests about tasks the service was sent."""
    return sum(count for call, count in service.calls.items() if call.endswith("quantum-task"))


def killed(command: list, environment: dict[str, str], service: Service, most: int) -> bool:
    """Starts a command and kills it, alone, at some moment after so many requests at most; whether it still ran."""
    rng = random.SystemRandom()
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until = asked(service) + rng.randint(1, most)
        while process.poll() is None and asked(service) < until:
            time.sleep(0.002)
        time.sleep(rng.random() / 5)
        process.kill()
    return process.returncode < 0


def pays_once(command: list, record: Path, kills: int, circuits: int, most: int, **settings) -> None:
    """Kills a command so often, lets it end, and holds its record against what the service was asked to run."""
    done, results = 0, set()
    with serving(**settings) as (service, variables):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONHASHSEED"))}
        environment = kept | variables | {"PYTHONHASHSEED": "random"}
        for _ in range(kills):
            done += killed(command, environment, service, most)
            there = {file.stem: file.read_bytes() for file in record.with_suffix("").glob("[!.]*.json")}
            assert results <= there.items(), "a result that was kept is lost"
            results = set(there.items())
            print(f"{done} kills, {len(service.tasks)} tasks, {len(results)} results", flush=True)
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-2000:]
        found = Record(record)
        whole = sum(found.result(id) is not None for id in found.tasks)
        print(f"{done} kills; {len(service.tasks)} tasks paid, {circuits} needed; {len(service.tasks) - whole} results lost")
        spent = sum(task.usd for task in found.tasks.values())
        print(f"${spent:.5f} in the record, ${service.usd:.5f} at the service")
        assert len(service.tasks) == len(found.tasks) == circuits
        assert spent == pytest.approx(service.usd)
        assert whole == circuits
    assert done


def test_a_run_that_is_killed_again_and_again_pays_for_each_circuit_once(tmp_path):
    record = tmp_path / "tasks.jsonl"
    pays_once([sys.executable, str(PAID_RUN), str(record)], record, 4, CIRCUITS, 12, sv1_s=0.3)


@pytest.mark.skipif(not KILLS, reason="takes half an hour: HQNN_KILLS=30")
def test_the_documented_command_that_is_killed_again_and_again_pays_for_each_circuit_once(tmp_path):
    chapter = runs.find("device_costs")
    brief = dict(n_qubits=3, depth=1, batch=4, parallel=2)
    given = brief | dict(dataset="digits", paid=True, budget_usd=1, record=tmp_path / "paid")
    assert given.keys() <= parameters.of(chapter).keys()
    options = [str(word) for name, value in given.items() for word in ("-p", name, value)]
    command = [BIN / "hqnn", "run", "device_costs", *options, "-o", str(tmp_path / "out.ipynb")]
    pays_once(command, tmp_path / "paid" / "sv1.jsonl", KILLS, 4 * (1 + 2 * 6), 4, sv1_s=0.3)
