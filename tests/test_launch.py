"""Started by torchrun and SLURM, on one machine and on several."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from forks import ended, finish, free_port, started
from lightning.pytorch.utilities import rank_zero_only

from lit_fm.checkpoint import newest_verified

FIT = (
    "fit --config lora.yaml --data.rows 40 --data.batch_size 4 --run.tracker none --score.examples 0 "
    "--trainer.limit_val_batches 0 --trainer.accelerator cpu --config trainer/ddp.yaml "
)


def losses(folder):
    (path,) = folder.glob("runs/lora/*/metrics.jsonl")
    lines = map(json.loads, path.read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def torchrun(*options):
    script = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "lit_fm"]
    return [*script, *FIT.split(), "--trainer.max_steps", "3"]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.slow
def test_torchrun_starts_the_ranks_of_one_machine(tmp_path):
    command = [*torchrun("--standalone", "--nproc_per_node", "2"), "--trainer.devices", "2"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(losses(tmp_path)) == 3
    assert json.loads((tmp_path / "runs/lora/001/run.json").read_text())["hardware"]["processes"] == 2


@pytest.mark.slow
def test_torchrun_hands_sigterm_on_and_its_ranks_save_and_go_on(tmp_path):
    """As a Kubernetes pod is evicted: torchrun itself gets the signal, and ends with 1 whatever its ranks say."""
    command = [*torchrun("--standalone", "--nproc_per_node", "2")[:-1], "4000", "--trainer.devices", "2"]
    metrics, run = tmp_path / "runs/lora/001/metrics.jsonl", tmp_path / "runs/lora/001"
    for again in (False, True):
        seen = metrics.read_text().count("train/loss") if again else 0
        job = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        until(lambda: metrics.exists() and metrics.read_text().count("train/loss") > seen + 2, [])  # noqa: B023
        job.terminate()
        said = job.communicate(timeout=60)[0]
        assert job.returncode == 1
        assert "by SIGTERM. The same command goes on from here." in said
        checkpoint, damaged = newest_verified(run)
        assert checkpoint
        assert not damaged
    assert "Going on with runs/lora/001, which is unfinished" in said


@pytest.fixture
def two_hosts():
    """Two network namespaces with a cable between them: what starts such a host, and its address."""
    names = [f"lit-fm-{os.getpid()}-{host}" for host in "ab"]
    ends = [f"lf{os.getpid() % 100_000}{host}" for host in "ab"]

    def ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for number, (name, end) in enumerate(zip(names, ends, strict=True), 1):
            ip("link", "set", end, "netns", name)
            for arguments in (["addr", "add", f"10.231.7.{number}/24", "dev", end], ["link", "set", end, "up"]):
                ip("-n", name, *arguments)
            ip("-n", name, "link", "set", "lo", "up")
        yield [
            (["ip", "netns", "exec", name], end, f"10.231.7.{n}")
            for n, (name, end) in enumerate(zip(names, ends, strict=True), 1)
        ]
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine makes no network namespaces: {error}")
    finally:
        if shutil.which("ip"):
            for name in names:
                subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_two_machines_take_the_steps_of_two_ranks_on_one(tmp_path, two_hosts):
    """Torchrun on each of two hosts, with the folder of runs on a disk that both see."""
    (_, _, first), running = two_hosts[0], []
    for number, (within, device, _) in enumerate(two_hosts):
        options = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(number)]
        options += ["--master_addr", first, "--master_port", "29511"]
        command = [*within, *torchrun(*options), "--trainer.num_nodes", "2", "--trainer.devices", "1"]
        env = environment(GLOO_SOCKET_IFNAME=device, TP_SOCKET_IFNAME=device)
        running.append(
            subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        )
    said = [process.communicate(timeout=200)[0].decode()[-3000:] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    one = tmp_path / "one"
    one.mkdir()
    command = [*torchrun("--standalone", "--nproc_per_node", "2"), "--trainer.devices", "2"]
    done = subprocess.run(command, cwd=one, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert losses(tmp_path) == pytest.approx(losses(one), rel=1e-6)


def slurm_tasks(folder, steps):
    """What srun would start: two tasks on one node."""
    port = free_port()
    folder.mkdir(exist_ok=True)

    def begin(rank):
        os.environ |= {
            "SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "fit", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        rank_zero_only.rank = rank

    arguments = (
        f"{FIT} --trainer.devices 2 --model.schedule.steps 8 --trainer.max_epochs 999 --trainer.max_steps {steps}"
    )
    return [
        started(folder, arguments.split(), lambda rank=rank: begin(rank), folder / f"out-{rank}.txt") for rank in (0, 1)
    ]


def until(condition, tasks):
    while not condition():
        for task in tasks:
            next(task)
        time.sleep(0.01)


def test_slurm_tasks_save_and_ask_to_be_queued_again_and_go_on(tmp_path):
    out, run = tmp_path / "out-0.txt", tmp_path / "runs/lora/001"
    for job in range(2):
        tasks = slurm_tasks(tmp_path, 2000)
        waiting = [ended(task) for task in tasks]
        metrics = run / "metrics.jsonl"
        seen = metrics.read_text().count("train/loss") if job else 0
        until(lambda: metrics.exists() and metrics.read_text().count("train/loss") > seen + 2, waiting)  # noqa: B023
        for task in tasks:  # as --signal=USR1 does shortly before the end
            os.kill(task, signal.SIGUSR1)
        assert finish(*waiting) == [75, 75], out.read_text()[-3000:]
        checkpoint, damaged = newest_verified(run)
        assert checkpoint
        assert not damaged
    stops = [int(step) for step in re.findall(r"Stopped at optimizer step (\d+) by SIGUSR1", out.read_text())]
    assert len(stops) == 2
    assert stops[1] > stops[0]
    assert f"Going on with runs/lora/001, which is unfinished, from step={stops[0]}" in out.read_text().replace(
        "\n", " "
    )


def test_a_signal_before_training_ends_the_process_with_its_code(tmp_path):
    tmp_path.joinpath("a").mkdir()
    arguments = FIT.replace("--config trainer/ddp.yaml", "--trainer.max_steps 9")
    child = started(tmp_path / "a", arguments.split(), slow)
    waiting = ended(child)
    until(lambda: (tmp_path / "a/out.txt").exists() and "preparing" in (tmp_path / "a/out.txt").read_text(), [waiting])
    os.kill(child, signal.SIGTERM)
    assert finish(waiting) == [143]
    assert not (tmp_path / "a/runs").exists()


def slow():
    """Reading the data takes a minute."""
    from lit_fm.data.instruct import InstructionData

    def setup(self, stage):
        print("preparing", flush=True)
        time.sleep(60)

    InstructionData.setup = setup


def test_the_batch_script_of_slurm_is_one(tmp_path):
    script = ROOT / "configs/cluster/slurm.sbatch"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    text = script.read_text()
    assert re.search(r"^#SBATCH --requeue$", text, re.M)
    (tmp_path / "srun").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\" > srun.txt\nexit 75\n")
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" > scontrol.txt\n')
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42", "SLURM_JOB_NUM_NODES": "2",
           "SLURM_NTASKS_PER_NODE": "8"}  # fmt: skip
    done = subprocess.run(["bash", script, "--config", "lora.yaml"], cwd=tmp_path, env=env, check=False)
    assert done.returncode == 75
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 42\n"
    asked = (tmp_path / "srun.txt").read_text().split("\n")
    assert asked[asked.index("--config") + 1] == "lora.yaml"
    assert all(Path(ROOT / "configs" / name).is_file() for name in asked if name.startswith("trainer/"))
