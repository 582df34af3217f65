"""Which run goes on and how; what a checkpoint survives; signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from forks import dies_at, differs, ended, finish, outcome, ran, started

from lit_fm import durable, resume
from lit_fm.checkpoint import by_step, check_learnable, newest, newest_verified
from lit_fm.checkpoint_io import VerifiedCheckpointIO, read, size_of

ROOT = Path(__file__).parents[1]
BASE = (
    "fit --config lora.yaml --data.rows 40 --data.batch_size 4 --run.tracker none --score.examples 0 "
    "--trainer.limit_val_batches 1 --trainer.max_epochs 20 --model.schedule.steps 12 "
)
SIX = f"{BASE} --trainer.max_steps 6 --run.save_every 2"


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A folder in which a run of six steps has ended."""
    folder = tmp_path_factory.mktemp("six")
    assert ran(folder, SIX)[0] == 0
    return folder


def test_the_room_that_a_checkpoint_needs_is_its_file_s_and_little_more(unfinished):
    state = newest(unfinished / "runs/lora/001") / "state.pt"
    assert state.stat().st_size < size_of(torch.load(state, weights_only=True)) < state.stat().st_size + 1_500_000


def test_a_setting_that_came_with_a_newer_version_and_asks_for_nothing_is_no_change():
    was = "model: {init_args: {compile: false, adaptation: {rank: 8}}}"
    now = "model: {init_args: {compile: false, liger: false, new: {}, adaptation: {rank: 8, dora: null}}}"
    assert resume.changes(was, now) == []
    asked = resume.changes(was, now.replace("liger: false", "liger: true"))
    assert asked == [("model.init_args.liger", None, True)]
    assert resume.refused(asked) == []
    assert resume.refused(resume.changes(was, now.replace("dora: null", "dora: true")))


def test_a_checkpoint_is_removed_whole_and_once(unfinished):
    path = newest(unfinished / "runs/lora/001")
    before = set(path.parent.iterdir())
    for _ in range(2):  # a rank may come too late
        VerifiedCheckpointIO().remove_checkpoint(path)
        assert set(path.parent.iterdir()) == before - {path}


def test_a_run_without_a_checkpoint_says_why(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="there is no run"):
        newest(tmp_path)
    (tmp_path / "config.yaml").write_text("{}")
    with pytest.raises(FileNotFoundError, match="this run has no checkpoint yet"):
        newest(tmp_path)
    (tmp_path / "checkpoints" / "step=2.ckpt").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="this run has no checkpoint that is whole"):
        newest(tmp_path)
    assert "step=2.ckpt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (("bias",), r"1 of 1 learnable tensors are not in it \(such as weight\), 1 in it .* here \(such as bias\)\."),
        (("weight", "bias"), r"0 of 1 learnable tensors are not in it, 1 in it are not learnt here \(such as bias\)\."),
        ((), r"1 of 1 learnable tensors are not in it \(such as weight\), 0 in it are not learnt here\."),
    ],
)
def test_a_checkpoint_of_other_weights_names_one_of_them(held, said):
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    check_learnable(module, {"state_dict": {"weight": module.weight}})
    with pytest.raises(ValueError, match=said):
        check_learnable(module, {"state_dict": dict.fromkeys(held)})


@pytest.fixture
def unfinished(six, tmp_path):
    """The same, as if it had been killed at its end."""
    shutil.copytree(six / "runs", tmp_path / "runs")
    (tmp_path / "runs/lora/001/summary.json").unlink()
    return tmp_path


# Folders that are there as a whole.


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def state(value, size=1000):
    return {"global_step": 1, "epoch": 0, "weights": torch.full((size,), float(value))}


def test_a_checkpoint_is_read_as_it_was_written_and_has_no_draft_beside_it(tmp_path):
    VerifiedCheckpointIO().save_checkpoint(state(3), tmp_path / "step=1.ckpt")
    assert torch.equal(read(tmp_path / "step=1.ckpt")["weights"], state(3)["weights"])
    assert names(tmp_path) == ["step=1.ckpt"]
    assert durable.verify(tmp_path / "step=1.ckpt")["step"] == 1


def flip(folder):
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "a truncated file": lambda folder: os.truncate(folder / "state.pt", 100),
    "no state": lambda folder: (folder / "state.pt").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "a torn manifest": lambda folder: os.truncate(folder / "manifest.json", 30),
    "a file too many": lambda folder: (folder / "more.pt").write_bytes(b"x"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_found(tmp_path, damage):
    for step in (1, 2):
        VerifiedCheckpointIO().save_checkpoint(state(step), tmp_path / f"checkpoints/step={step}.ckpt")
    DAMAGES[damage](tmp_path / "checkpoints/step=2.ckpt")
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path / "checkpoints/step=2.ckpt")
    found, said = newest_verified(tmp_path)
    assert found.name == "step=1.ckpt"
    assert "step=2.ckpt is damaged" in said[0]


def test_a_folder_is_replaced_only_once_the_new_one_is_whole(tmp_path):
    VerifiedCheckpointIO().save_checkpoint(state(1), tmp_path / "a")
    with pytest.raises(ZeroDivisionError), durable.writing(tmp_path / "a") as draft:
        (draft / "state.pt").write_bytes(b"half" * (1 // 0))
    assert read(tmp_path / "a")["weights"][0] == 1
    VerifiedCheckpointIO().save_checkpoint(state(2), tmp_path / "a")
    assert read(tmp_path / "a")["weights"][0] == 2
    assert names(tmp_path) == ["a"]


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small file system of its own; only root can."""
    folders = []

    def mount(options):
        folder = tmp_path / f"disk{len(folders)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("this user cannot mount a file system")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "-l", folder], check=False)


@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk_leaves_the_last_good_checkpoint(mounted, monkeypatch, known):
    disk = mounted("size=2m")
    VerifiedCheckpointIO().save_checkpoint(state(1, 250_000 - 2000), disk / "step=1.ckpt")
    if not known:  # it fills while it is written to
        monkeypatch.setattr("lit_fm.checkpoint_io.size_of", lambda state: 0)
    with pytest.raises((OSError, RuntimeError)) as failed:
        VerifiedCheckpointIO().save_checkpoint(state(2, 400_000), disk / "step=2.ckpt")
    if known:
        assert "bytes, and" in str(failed.value)
    assert names(disk) == ["step=1.ckpt"]
    assert read(disk / "step=1.ckpt")["weights"][0] == 1


def test_a_run_on_a_disk_that_fills_stops_with_one_message_and_its_last_good_checkpoint(mounted, tmp_path):
    disk = mounted("size=12m")
    code, said = ran(tmp_path / "work", f"{SIX} --run.root {disk} --run.keep 9")
    assert code == 1
    assert "are free on its disk: make room" in said.splitlines()[-1]
    found, damaged = newest_verified(disk / "lora/001")
    assert found
    assert not damaged


def test_a_read_only_folder_is_one_message(mounted, tmp_path):
    disk = mounted("size=1m,ro")
    code, said = ran(tmp_path / "work", f"{SIX} --run.root {disk}")
    assert code == 1
    assert said.splitlines()[-1].startswith("error: ")


def test_a_temporary_folder_on_another_disk_is_not_used(mounted, tmp_path, monkeypatch):
    disk = mounted("size=1m")
    monkeypatch.setenv("TMPDIR", str(disk))
    monkeypatch.setattr("tempfile.tempdir", None)
    VerifiedCheckpointIO().save_checkpoint(state(1, 1_000_000), tmp_path / "a")
    assert read(tmp_path / "a")["weights"][0] == 1
    assert not names(disk)


def test_writing_a_checkpoint_takes_little_more_memory_than_it(tmp_path):
    script = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
from lit_fm.checkpoint_io import VerifiedCheckpointIO
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
VerifiedCheckpointIO().save_checkpoint({{"global_step": 0, "epoch": 0}}, {str(tmp_path / "a")!r})
before = peak()
state = {{"global_step": 1, "epoch": 0, "weights": [torch.ones(10_000_000) for _ in range(8)]}}
VerifiedCheckpointIO().save_checkpoint(state, {str(tmp_path / "b")!r})
print((peak() - before) / 320e6)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.2


def test_checkpoints_in_the_background_are_those_of_the_foreground(six, tmp_path):
    code, said = ran(tmp_path, f"{SIX} --run.save_in_background true")
    assert code == 0, said
    for step in (4, 6):
        here, there = (
            read(folder / f"runs/lora/001/checkpoints/step={step}.ckpt")["state_dict"] for folder in (tmp_path, six)
        )
        assert differs(here, there) == ""


def test_a_background_that_cannot_write_stops_the_run_with_one_message(mounted, tmp_path):
    disk = mounted("size=6m")
    code, said = ran(tmp_path / "work", f"{SIX} --run.root {disk} --run.save_in_background true --run.keep 9")
    assert code == 1
    assert "are free on its disk: make room" in said.splitlines()[-1]
    assert not newest_verified(disk / "lora/001")[1]


# Which run goes on.


def test_the_same_command_begins_anew_where_the_run_ended(six, tmp_path):
    shutil.copytree(six / "runs", tmp_path / "runs")
    code, _ = ran(tmp_path, SIX)
    assert code == 0
    assert sorted(p.name for p in (tmp_path / "runs/lora").iterdir()) == ["001", "002"]
    assert differs(outcome_of(tmp_path, "001"), outcome_of(tmp_path, "002")) == ""


def outcome_of(folder, number, steps=6):
    last = folder / f"runs/lora/{number}/checkpoints/step={steps}.ckpt/state.pt"
    return torch.load(last, weights_only=True)["state_dict"]


def test_a_run_that_was_cut_off_goes_on_behind_a_damaged_checkpoint(unfinished, six):
    flip(unfinished / "runs/lora/001/checkpoints/step=6.ckpt")
    code, said = ran(unfinished, SIX)
    assert code == 0
    assert "step=6.ckpt is damaged: state.pt is not what was written" in said.replace("\n", " ")
    assert "from step=4" in said.replace("\n", " ")
    assert differs(outcome(unfinished, 6), outcome(six, 6)) == ""


def test_other_settings_begin_a_new_run_and_say_so(unfinished):
    code, said = ran(unfinished, f"{SIX} --data.seed 5")
    assert code == 0
    assert "has other settings (data.init_args.seed 0 -> 5): a new run begins" in said.replace("\n", " ")
    assert (unfinished / "runs/lora/002/summary.json").exists()


def test_what_is_required_and_not_there_is_an_error(tmp_path, unfinished):
    code, said = ran(tmp_path / "empty", f"{SIX} --run.resume required")
    assert code == 1
    assert "there is no run to go on with" in said
    code, said = ran(unfinished, f"{SIX} --run.resume required --data.seed 5")
    assert code == 1
    assert "cannot go on with data.init_args.seed 0 -> 5: set them back" in said


def test_never_begins_anew(unfinished):
    assert ran(unfinished, f"{SIX} --run.resume never")[0] == 0
    assert (unfinished / "runs/lora/002/summary.json").exists()


def test_a_run_at_work_is_left_alone(unfinished):
    arguments = f"{SIX} --run.resume required"
    lock = subprocess.Popen(
        [sys.executable, "-c", "from lit_fm.resume import Lock; import sys, time; from pathlib import Path\n"
         "lock = Lock(Path(sys.argv[1])); print(1, flush=True); time.sleep(60)", unfinished / "runs/lora/001"],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        lock.stdout.readline()
        code, said = ran(unfinished, arguments)
    finally:
        lock.kill()
        lock.wait()
    assert code == 1
    assert "is at work in another process" in said
    assert not resume.at_work(unfinished / "runs/lora/001")


def test_a_run_that_ended_is_extended_as_if_it_had_been_longer_from_the_start(six, tmp_path):
    shutil.copytree(six / "runs", tmp_path / "runs")
    code, said = ran(tmp_path, "fit --run runs/lora/001 --trainer.max_steps 12")
    assert code == 0, said
    assert "Changed from here on: trainer.max_steps 6 -> 12" in said.replace("\n", " ")
    straight = tmp_path / "straight"
    assert ran(straight, f"{BASE} --trainer.max_steps 12 --run.save_every 2")[0] == 0
    assert differs(outcome(tmp_path, 12), outcome(straight, 12)) == ""
    assert json.loads((tmp_path / "runs/lora/001/summary-old.json").read_text())["optimizer_steps"] == 6
    assert yaml.safe_load((tmp_path / "runs/lora/001/config-old.yaml").read_text())["trainer"]["max_steps"] == 6


def test_a_changed_rate_holds_from_the_resumed_step_on(unfinished):
    rate = "--model.optimizer.init_args.lr"
    arguments = f"{BASE} --trainer.max_steps 7 --run.resume required {rate} 0.0001 --model.schedule.kind constant"
    code, said = ran(unfinished, arguments)
    assert code == 0, said
    assert "lr 0.004 -> 0.0001" in said.replace("\n", " ") or "-> 0.0001" in said.replace("\n", " ")
    (line,) = [
        json.loads(x)
        for x in (unfinished / "runs/lora/001/metrics.jsonl").read_text().splitlines()
        if '"step": 6,' in x and '"lr"' in x
    ]
    assert line["lr"] == pytest.approx(1e-4)


def test_the_steps_are_the_same_with_other_micro_batches(unfinished, tmp_path):
    straight = tmp_path / "straight"
    assert ran(straight, f"{BASE} --trainer.max_steps 12 --run.save_every 2")[0] == 0
    halves = "--data.batch_size 2 --trainer.accumulate_grad_batches 2"
    code, said = ran(unfinished, f"{BASE} --trainer.max_steps 12 --run.save_every 2 --run.resume required {halves}")
    assert code == 0, said
    one, other = outcome(straight, 12), outcome(unfinished, 12)
    for name, weight in one[0].items():
        torch.testing.assert_close(other[0][name], weight, rtol=1e-4, atol=1e-6)
    for step in range(6, 12):
        assert other[3][step] == pytest.approx(one[3][step], rel=1e-5)


def test_steps_of_another_size_are_refused(unfinished):
    code, said = ran(unfinished, f"{BASE} --trainer.max_steps 12 --run.resume required --data.batch_size 8")
    assert code == 1
    assert "an optimizer step of this run has 4 rows" in said


def test_damaged_checkpoints_are_put_aside_and_do_not_push_out_good_ones(unfinished):
    for step in (4, 6):
        flip(unfinished / f"runs/lora/001/checkpoints/step={step}.ckpt")
    assert ran(unfinished, SIX, dies_at(3))[0] == -signal.SIGKILL
    folder = unfinished / "runs/lora/001/checkpoints"
    assert names(folder) == ["step=2.ckpt", "step=4.damaged", "step=6.damaged"]
    assert ran(unfinished, SIX)[0] == 0
    assert newest_verified(folder.parent)[0].stem == "step=6"


def test_other_verbs_do_not_hide_an_unfinished_fit(unfinished):
    assert ran(unfinished, SIX.replace("fit ", "validate "))[0] == 0
    assert (unfinished / "runs/lora/002/validate.json").exists()
    code, said = ran(unfinished, SIX)
    assert code == 0, said
    assert "Going on with runs/lora/001" in said.replace("\n", " ")


def test_the_newest_run_with_these_settings_goes_on_behind_others(unfinished):
    assert ran(unfinished, f"{SIX} --seed_everything 3", dies_at(3))[0] == -signal.SIGKILL
    code, said = ran(unfinished, SIX)
    assert code == 0, said
    assert "Going on with runs/lora/001" in said.replace("\n", " ")


def test_changed_optimizer_settings_hold_and_another_class_is_refused_without_a_trace(unfinished):
    more = f"{BASE} --trainer.max_steps 7 --run.save_every 1 --run.resume required"
    before = (unfinished / "runs/lora/001/config.yaml").read_text()
    code, said = ran(unfinished, f"{more} --model.optimizer torch.optim.SGD --model.optimizer.init_args.lr 0.1")
    assert code == 1
    assert "class_path 'torch.optim.AdamW' -> 'torch.optim.SGD'" in said
    code, said = ran(unfinished, f"{more} --trainer.strategy lit_fm.nothing")
    assert code == 1
    assert (unfinished / "runs/lora/001/config.yaml").read_text() == before
    code, said = ran(unfinished, f"{more} --model.optimizer.init_args.betas [0.1,0.2]")
    assert code == 0, said
    (group, *_) = read(unfinished / "runs/lora/001/checkpoints/step=7.ckpt")["optimizer_states"][0]["param_groups"]
    assert list(group["betas"]) == [0.1, 0.2]


def test_a_run_that_was_cut_off_behind_its_last_step_is_scored_all_the_same(tmp_path):
    def dies():
        from lit_fm.results import Results

        Results._summary = lambda *args: os.kill(os.getpid(), signal.SIGKILL)

    arguments = SIX.replace("--score.examples 0", "--score.examples 4")
    assert ran(tmp_path / "a", arguments)[0] == 0
    assert ran(tmp_path / "b", arguments, dies)[0] == -signal.SIGKILL
    code, said = ran(tmp_path / "b", arguments)
    assert code == 0, said
    one, other = (json.loads((tmp_path / n / "runs/lora/001/summary.json").read_text()) for n in "ab")
    for key in ("measured", "exact_match", "exact_match_before", "optimizer_steps", "generations"):
        assert one[key] == other[key], key
    assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)


def test_fewer_steps_than_were_made_are_refused(unfinished):
    code, said = ran(unfinished, f"{BASE} --trainer.max_steps 3 --run.resume required")
    assert code == 1
    assert "has made 6 steps, more than trainer.max_steps 3" in said


def test_a_named_checkpoint_starts_a_run_and_the_run_then_goes_on_by_its_own(six, tmp_path):
    start = six / "runs/lora/001/checkpoints/step=4.ckpt"
    arguments = f"{BASE} --trainer.max_steps 10 --run.save_every 2 --ckpt_path {start}"
    assert ran(tmp_path / "a", arguments, dies_at(9))[0] == -signal.SIGKILL
    code, said = ran(tmp_path / "a", arguments)
    assert code == 0, said
    assert "from step=8" in said.replace("\n", " ")
    lines = map(json.loads, (tmp_path / "a/runs/lora/001/metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if "train/loss" in line] == [4, 5, 6, 7, 8, 8, 9]
    for word in ("last", "best"):
        code, said = ran(tmp_path / word, f"{SIX} --ckpt_path {word}")
        assert code == 1
        assert f"--ckpt_path {word}: give a checkpoint's folder" in said


def test_the_config_of_a_run_that_was_extended_makes_a_new_run(six, tmp_path):
    shutil.copytree(six / "runs", tmp_path / "runs")
    assert ran(tmp_path, "fit --run runs/lora/001 --trainer.max_steps 8")[0] == 0
    assert ran(tmp_path, "fit --config runs/lora/001/config.yaml")[0] == 0
    assert names(tmp_path / "runs/lora") == ["001", "002"]


def test_a_test_of_a_run_says_when_it_takes_an_older_checkpoint(six, tmp_path):
    shutil.copytree(six / "runs", tmp_path / "runs")
    flip(tmp_path / "runs/lora/001/checkpoints/step=6.ckpt")
    code, said = ran(tmp_path, "validate --run runs/lora/001")
    assert code == 0
    assert "step=6.ckpt is damaged" in said


def test_what_a_kill_left_amid_replacing_a_checkpoint_is_put_back(tmp_path, monkeypatch):
    path = tmp_path / "step=1.ckpt"
    VerifiedCheckpointIO().save_checkpoint(state(1), path)
    real = Path.rename

    def rename(self, target):
        if target == path:  # as if killed here, the old one moved and the new one not yet in its place
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        VerifiedCheckpointIO().save_checkpoint(state(2), path)
    monkeypatch.undo()
    assert not path.exists()
    durable.sweep(tmp_path)
    assert names(tmp_path) == ["step=1.ckpt"]
    assert read(path)["weights"][0] == 1


def test_what_a_desktop_leaves_in_a_folder_damages_no_checkpoint(tmp_path):
    VerifiedCheckpointIO().save_checkpoint(state(1), tmp_path / "a")
    (tmp_path / "a/.DS_Store").write_bytes(b"x")
    assert read(tmp_path / "a")["weights"][0] == 1


def test_stopping_needs_checkpoints(tmp_path):
    code, said = ran(tmp_path / "a", f"{SIX} --trainer.enable_checkpointing false")
    assert code == 1
    assert "run.save_every and run.stop_after need checkpoints" in said


# Signals.

STOPPING = """
from lightning.pytorch.callbacks import EarlyStopping

class Falls(EarlyStopping):
    def __init__(self):
        super().__init__("val/loss", mode="max", patience=2)
"""


@pytest.mark.parametrize("where", ["amid the validation", "in the step before it"])
def test_a_validation_that_a_signal_cut_off_is_made_when_the_run_goes_on(tmp_path, where):
    (tmp_path / "falls.py").write_text(STOPPING)
    arguments = (
        f"{BASE} --trainer.max_steps 40 --run.save_every 4 --trainer.limit_val_batches 2 --trainer.val_check_interval 3 "
        "--trainer.callbacks+ falls.Falls"
    )

    def hook(cut):
        def begin():
            sys.path.insert(0, str(tmp_path))
            from lit_fm.objectives.causal import CausalLM

            name, step = ("validation_step", 6) if where == "amid the validation" else ("training_step", 5)
            real = getattr(CausalLM, name)

            def call(self, *args):
                if cut and self.trainer.global_step == step:
                    os.kill(os.getpid(), signal.SIGTERM)
                return real(self, *args)

            setattr(CausalLM, name, call)

        return begin

    assert ran(tmp_path / "straight", arguments, hook(False))[0] == 0
    assert ran(tmp_path / "cut", arguments, hook(True))[0] == 143
    code, said = ran(tmp_path / "cut", arguments, hook(False))
    assert code == 0, said
    logs = [(tmp_path / name / "runs/lora/001/metrics.jsonl").read_text().splitlines() for name in ("straight", "cut")]
    one, other = ([json.loads(line) for line in log] for log in logs)
    for key in ("train/loss", "val/loss"):
        assert [(x["step"], x[key]) for x in one if key in x] == [(x["step"], x[key]) for x in other if key in x]


LONG = f"{BASE} --trainer.max_steps 5000 --trainer.max_epochs 5000"


def stopped(folder, number, arguments=LONG, after="step 1/", env=None):
    """A run that got a signal behind a step: its exit status, the seconds it took to end, and what it wrote."""
    folder.mkdir(exist_ok=True)
    child = started(folder, arguments.split(), lambda: os.environ.update(env or {}))
    waiting = ended(child)
    out = folder / "out.txt"
    while not (out.exists() and after in out.read_text()):
        next(waiting)
        time.sleep(0.01)
    begun = time.monotonic()
    os.kill(child, number)
    (code,) = finish(waiting)
    return code, time.monotonic() - begun, out.read_text()


@pytest.mark.parametrize(
    ("number", "env", "code"),
    [
        (signal.SIGTERM, {}, 143),
        (signal.SIGUSR1, {}, 138),
        (signal.SIGINT, {}, 130),
        (signal.SIGUSR1, {"SLURM_JOB_ID": "1"}, 75),
    ],
)
def test_a_signal_saves_at_the_end_of_the_step_and_ends_with_its_code(tmp_path, number, env, code):
    found, seconds, said = stopped(tmp_path / "a", number, env=env)
    assert found == code
    assert seconds < 20
    assert "The same command goes on" in said.replace("\n", " ")
    checkpoint, damaged = newest_verified(tmp_path / "a/runs/lora/001")
    assert checkpoint is not None
    assert not damaged
    step = int(said.split("optimizer step ")[1].split()[0])
    assert checkpoint.stem == f"step={step}"
    assert durable.verify(checkpoint)["step"] == step
    assert len(by_step(checkpoint.parent)) <= 2


def test_a_run_stops_after_the_time_given(tmp_path):
    code, said = ran(tmp_path / "a", f"{LONG} --run.stop_after 1")
    assert code == 75
    assert "by the time given by run.stop_after" in said.replace("\n", " ")
    assert newest_verified(tmp_path / "a/runs/lora/001")[0]
