"""Killed at any instant, the same command ends with the same weights, to the last bit."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from forks import dies_at, differs, ended, finish, outcome, started

RUNS = {
    "clm": "--config lora.yaml --data.packing best-fit --data.max_length 96 --data.batch_size 2 --data.rows 60",
    "mlm": "--config cloze.yaml --model.adaptation adapt/full.yaml --data.batch_size 4 --data.rows 60",
    "span": "--config pretrain/tiny-t5.yaml --model.from_scratch false --data.documents 60 --data.held_out 5 "
    "--data.block_size 64 --data.batch_size 4",
}
COMMON = (
    "--run.tracker none --score.examples 0 --trainer.max_steps {steps} --trainer.max_epochs 3 --run.save_every 2 "
    "--trainer.limit_val_batches 2 --trainer.accumulate_grad_batches 2 --data.workers 2 "
    "--trainer.val_check_interval 3 --trainer.enable_progress_bar false"
)
STEPS = 16


def command(kind):
    return f"fit {RUNS[kind]} {COMMON.format(steps=STEPS)}".split()


def dies_within_a_checkpoint(number, share):
    """In the `number`-th checkpoint of the process, behind this share of its bytes: killed between two of them."""

    def hook():
        written, real = [0], torch.save

        def save(state, path):
            written[0] += 1
            whole = Path(f"{path}.whole")
            real(state, whole if written[0] == number else path)
            if written[0] < number:
                return
            content = whole.read_bytes()
            whole.unlink()
            with Path(path).open("wb") as file:
                file.write(content[: int(len(content) * share)])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        torch.save = save

    return hook


def straight(folder, kind):
    """A run without a kill: its outcome, and the seconds that it took."""
    folder.mkdir()
    begun = time.monotonic()
    code = yield from ended(started(folder, command(kind)))
    assert code == 0, (folder / "out.txt").read_text()[-3000:]
    return outcome(folder, STEPS), time.monotonic() - begun


def killed_again_and_again(folder, kind, seconds, kills, chance):
    """The same command, killed and started again until it ends. `kills`: what happens to each start, until none is left."""
    folder.mkdir()
    died = []
    while True:
        within = kills.pop() if kills else None
        hook = dies_within_a_checkpoint(chance.choice([1, 2]), chance.random()) if within else None
        at = time.monotonic() + chance.uniform(0.1, 0.8) * seconds if within is False else None
        code = yield from ended(started(folder, command(kind), hook), at)
        assert code in (0, -signal.SIGKILL), (folder / "out.txt").read_text()[-3000:]
        if code == 0:
            return outcome(folder, STEPS), died
        died.append(within)


def dies_behind_a_checkpoint(number):
    """As soon as the `number`-th checkpoint of the process is whole."""

    def hook():
        from lit_fm.keep import Keep

        saved, real = [0], Keep.save

        def save(self, *args):
            real(self, *args)
            saved[0] += 1
            if saved[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

        Keep.save = save

    return hook


def test_the_step_in_front_of_a_checkpoint_is_measured_once_even_if_the_run_dies_behind_it(tmp_path):
    (tmp_path / "killed").mkdir()
    ((reference, _),) = finish(straight(tmp_path / "straight", "mlm"))
    (code,) = finish(ended(started(tmp_path / "killed", command("mlm"), dies_behind_a_checkpoint(2))))
    assert code == -signal.SIGKILL
    (code,) = finish(ended(started(tmp_path / "killed", command("mlm"))))
    assert code == 0
    assert differs(outcome(tmp_path / "killed", STEPS), reference) == ""
    (path,) = tmp_path.glob("straight/runs/*/*/metrics.jsonl")
    steps = [line["step"] for line in map(json.loads, path.read_text().splitlines()) if "train/loss" in line]
    assert steps == list(range(STEPS))


VALIDATION = {
    "amid an epoch": "",
    "at its end": "--trainer.val_check_interval null ",
    "never": "--trainer.limit_val_batches 0 ",
}


@pytest.mark.parametrize("when", list(VALIDATION))
@pytest.mark.parametrize("kind", ["mlm", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("clm", "span"))])
def test_a_run_killed_at_the_end_of_an_epoch_ends_bit_equal(tmp_path, kind, when):
    """Step 8 begins the second epoch, and the last step of the first has fewer micro-batches than the others."""
    arguments = [*command(kind), *VALIDATION[when].split()]

    def killed(step):
        folder = tmp_path / str(step)
        folder.mkdir()
        if step:
            code = yield from ended(started(folder, arguments, dies_at(step)))
            assert code == -signal.SIGKILL
        code = yield from ended(started(folder, arguments))
        assert code == 0, (folder / "out.txt").read_text()[-3000:]
        return outcome(folder, STEPS)

    straight, *others = finish(killed(0), killed(7), killed(8), killed(9))
    assert [differs(found, straight) for found in others] == ["", "", ""]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", list(RUNS))
def test_runs_killed_at_any_instant_end_bit_equal(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("LIT_FM_CACHE", str(tmp_path / "cache"))
    ((reference, seconds),) = finish(straight(tmp_path / "straight", kind))
    chance, died, number = random.Random(kind), [], 0
    while len(died) < 20 or sum(died) < 7:
        number += 2
        lanes = [[chance.random() < 0.4 for _ in range(4)] for _ in range(2)]
        folders = [tmp_path / str(number + lane) for lane in range(2)]
        tasks = [
            killed_again_and_again(folder, kind, seconds, kills, random.Random(f"{kind}{folder.name}"))
            for folder, kills in zip(folders, lanes, strict=True)
        ]
        for folder, (found, deaths) in zip(folders, finish(*tasks), strict=True):
            assert differs(found, reference) == "", folder
            died += deaths
            shutil.rmtree(folder)
    print(f"{kind}: {len(died)} runs killed, {sum(died)} of them within a checkpoint; {seconds:.1f} s without a kill")


def test_a_run_killed_within_a_checkpoint_ends_bit_equal(tmp_path):
    (reference, _), (found, died) = finish(
        straight(tmp_path / "straight", "clm"),
        killed_again_and_again(tmp_path / "killed", "clm", 0, [True, True], random.Random(0)),
    )
    assert died == [True, True]
    assert differs(found, reference) == ""
    assert "Going on with runs/lora/001" in (tmp_path / "killed" / "out.txt").read_text()
