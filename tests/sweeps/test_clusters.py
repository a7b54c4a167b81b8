"""Sweeps on engines that are not ours, on this machine: Dask's processes, a SLURM of one node, and runs kept in S3's store.

Each is started by its test, on the loopback, and skipped with the reason where it is not installed.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from running import Inline, until

from hqnn_utils.errors import SweepError
from hqnn_utils.sweeps import collected, engines
from hqnn_utils.sweeps.description import Sweep
from hqnn_utils.sweeps.slurm import Slurm
from hqnn_utils.sweeps.stores import Store

HQNN = Path(sys.executable).parent / "hqnn"
PARAMETERS = "where: str = ''  # in {*}\nx: int = 0  # in [0, 99]\nnap: float = 0.0  # s, in [0, 60]"
CELLS = (
    """import os, time
from pathlib import Path
from hqnn_utils.notebooks.parameters import check_parameters
from hqnn_utils.notebooks.results import record
check_parameters(globals())
tried = len(list(Path(where).glob(f"{x}-*")))
Path(where, f"{x}-{os.getpid()}").touch()
time.sleep(0 if tried else nap)""",
    "record({'square': x**2})",
)


SWEEP = """
chapter = "{folder}/toy.ipynb"
output = "{output}"
fixed = {{ where = "{folder}/marks" }}
list = [{{ x = 1, nap = {nap} }}, {{ x = 2 }}]
"""


@pytest.fixture
def described(write_notebook, tmp_path):
    """Writes down a sweep of two runs, each of which leaves a mark; the first of all takes its time."""
    write_notebook(tmp_path / "toy.ipynb", *CELLS, parameters=PARAMETERS)
    (tmp_path / "marks").mkdir()

    def write(nap: float = 0.0, output: str = "") -> Path:
        file = tmp_path / "toy.toml"
        file.write_text(SWEEP.format(folder=tmp_path, output=output or tmp_path / "out", nap=nap))
        return file

    return write


@pytest.fixture
def sweep(described):
    return lambda output="": Sweep.read(described(output=output))


def squares(place: str) -> list[float]:
    table = collected.long(place)
    return table[table["result"] == "square"]["value"].tolist()


def marks(tmp_path: Path) -> list[str]:
    return sorted(mark.name.partition("-")[0] for mark in (tmp_path / "marks").iterdir())


# -- Dask ------------------------------------------------------------------------------------------------------------


def test_a_sweep_on_dask_outlives_a_worker_that_is_killed(sweep, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs the extra [cluster]")
    options = dict(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        (worker,) = client.run(os.getpid).values()

        def kill_once(ended: int, *told: object) -> None:
            if ended == 1:
                os.kill(worker, signal.SIGKILL)

        summary = engines.run(sweep(), client.get_executor(), report=kill_once)
    assert len(summary.finished) == 2 and squares(summary.place) == [1.0, 4.0]


# -- SLURM -----------------------------------------------------------------------------------------------------------

CONFIGURATION = """ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d.log
SlurmctldPort={control}
SlurmdPort={node}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="module")
def one_node(tmp_path_factory):
    """A SLURM of one node, which ends with the tests: its folder."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and Debian's slurm-wlm and munge to start a SLURM of one node; missing: {missing}")
    pytest.importorskip("submitit", reason="needs the extra [cluster]")
    folder, started = tmp_path_factory.mktemp("slurm"), []
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    numbers = dict(control=free_port(), node=free_port(), cpus=os.cpu_count())
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, **numbers))
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    options = ["--foreground", "--force", f"--key-file={folder}/key", f"--socket={folder}/munge.socket"]
    options += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    try:
        for command in (["munged", *options], ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]):
            quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            started.append(subprocess.Popen(command, env=environment, **quiet))
            time.sleep(0.5)
        idle = ["sinfo", "--noheader", "--format=%t"]
        asked = dict(env=environment, capture_output=True, text=True)
        if not until(lambda: subprocess.run(idle, **asked).stdout.strip() == "idle", 30):
            pytest.skip(f"SLURM does not start here: {(folder / 'ctld.log').read_text()[-300:]}")
        yield folder
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(20)


@pytest.fixture
def slurm(one_node, monkeypatch):
    """SLURM's commands reach the one node."""
    monkeypatch.setenv("SLURM_CONF", str(one_node / "slurm.conf"))
    monkeypatch.setenv("PATH", PATH)
    return one_node


PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin"])


def test_the_command_sweeps_on_slurm_and_outlives_a_job_that_is_killed(slurm, described, tmp_path):
    asked = {"partition": "all", "time": "7", "mem": "2G", "cpus-per-task": "1", "comment": "hqnn"}
    options = [word for name, value in asked.items() for word in ("--slurm", name, value)]
    command = [HQNN, "sweep", described(nap=30.0), "--on", "slurm", *options, "--slurm", "folder", tmp_path / "jobs"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with subprocess.Popen(command, **pipes) as process:
        assert until(lambda: list((tmp_path / "marks").glob("1-*"))), process.kill() or process.stdout.read()
        known = [
            "squeue",
            "--noheader",
            "--array",
            "--states=running",
            "--Format=Partition:|,TimeLimit:|,MinMemory:|,Comment:|",
        ]
        assert subprocess.run(known, capture_output=True, text=True).stdout.splitlines()[0] == "all|7:00|2G|hqnn|"
        kernel = int(next((tmp_path / "marks").glob("1-*")).name.rpartition("-")[2])
        next(parent for parent in psutil.Process(kernel).parents() if "submitit" in " ".join(parent.cmdline())).kill()
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "2 finished, 0 failed" in said, said
    assert squares(str(tmp_path / "out")) == [1.0, 4.0] and marks(tmp_path) == ["1", "1", "2"]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["partition", "nowhere"], "SLURM takes no job with --time=60 --partition=nowhere: error: invalid partition"),
        (["partitions", "all"], "SLURM takes no job with --time=60 --partitions=all: unrecognized option"),
        (["time", "soon"], "the time of a job is a number of minutes, got 'soon'"),
    ],
)
def test_what_slurm_does_not_take_is_refused_before_anything_is_submitted(slurm, described, hqnn, tmp_path, option, sentence):
    done = hqnn("sweep", described(), "--on", "slurm", "--slurm", *option)
    assert done.returncode == 1 and sentence in done.stderr and not (tmp_path / "out").exists(), done.stderr


def test_the_command_refuses_a_scheduler_that_is_not_there_in_seconds(slurm, described, hqnn, tmp_path, monkeypatch):
    known = (slurm / "slurm.conf").read_text()
    (tmp_path / "slurm.conf").write_text(re.sub("SlurmctldPort=.*", f"SlurmctldPort={free_port()}", known))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    started = time.monotonic()
    done = hqnn("sweep", described(), "--on", "slurm")
    assert time.monotonic() - started < 10 and done.returncode == 1
    assert "the scheduler of SLURM cannot be reached" in done.stderr and "nothing was submitted" in done.stderr


def test_a_scheduler_that_cannot_be_reached_is_refused_in_seconds(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="needs the extra [cluster]")
    for name, text in (("sinfo", "#!/bin/sh\nexec sleep 60\n"), ("sbatch", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("hqnn_utils.sweeps.slurm.PATIENCE", 0.5)
    started = time.monotonic()
    with pytest.raises(SweepError, match=r"cannot be reached: no answer within 0\.5 s; nothing was submitted"):
        Slurm(tmp_path)
    assert time.monotonic() - started < 5
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2\nexit 1\n")
    with pytest.raises(SweepError, match="cannot be reached: Unable to contact slurm controller"):
        Slurm(tmp_path)


def test_a_machine_without_slurm_is_told_so(monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="needs the extra [cluster]")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SweepError, match="there is no SLURM here"):
        Slurm(tmp_path)


# -- S3 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch):
    """An empty bucket of a server on the loopback that speaks S3."""
    pytest.importorskip("s3fs", reason="needs the extra [cluster]")
    server = pytest.importorskip("moto.server", reason="needs moto").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    import boto3

    server.start()
    host, port = server.get_host_and_port()
    known = dict(AWS_ACCESS_KEY_ID="testing", AWS_SECRET_ACCESS_KEY="testing", AWS_DEFAULT_REGION="us-east-1")
    for name, value in (known | dict(AWS_ENDPOINT_URL=f"http://{host}:{port}", NO_PROXY="127.0.0.1")).items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="sweeps")
    yield "s3://sweeps/mine"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_runs_are_kept_in_s3_and_never_made_again(bucket, sweep, tmp_path):
    done = [engines.run(sweep(output=bucket), Inline(), report=lambda *told: None).executed for _ in range(2)]
    assert done == [2, 0] and squares(bucket) == [1.0, 4.0]
    store = Store(bucket)
    assert len(store.names()) == 3 and len(store.read("sweep.json")) > 100
    store.remove(next(name for name in store.names() if name.endswith(".ipynb")))
    assert "2 runs of toy, 1 finished" in engines.plan(sweep(output=bucket))


def test_a_bucket_that_there_is_not_is_refused(bucket, sweep):
    with pytest.raises(SweepError.__base__, match="cannot write s3://nowhere/mine"):
        engines.run(sweep(output="s3://nowhere/mine"), Inline(), report=lambda *told: None)
