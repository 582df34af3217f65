"""Many fits for the best settings: what is tried, what is told, and that a sweep which is killed goes on."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import yaml
from conftest import ROOT, ROWS

from lit_fm.sweep.report import Trial, report
from lit_fm.sweep.space import Range, corners, labels, read

RATE = "model.init_args.optimizer.init_args.lr"
RANK = "model.init_args.adaptation.init_args.rank"
OVER = {RATE: {"min": "1e-3", "max": 1e-2, "log": True}, RANK: {"values": [2, 4]}}
SMALL = (
    "--run.tracker none --score.examples 0 --data.source rows.jsonl --data.batch_size 8 --trainer.max_steps 2 "
    "--run.save_every 1 --trainer.val_check_interval 1"
).split()


@pytest.fixture
def space(in_tmp):
    """Write a sweep's YAML and rows beside it."""
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def write(**changes):
        said = {"metric": "val_loss", "goal": "min", "trials": 2, "over": OVER, **changes}
        (in_tmp / "space.yaml").write_text(yaml.safe_dump({k: v for k, v in said.items() if v is not None}))
        return ("sweep", "--config", "lora.yaml", "--sweep", "space.yaml")

    return write


def trials(folder):
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_sweep_ends_with_trials_in_order_a_picture_and_a_config_that_runs(lit, in_tmp, llama, space):
    command = (*space(), *SMALL, "--model.backbone", llama)
    done = lit(*command)
    assert done.code == 0, done.err
    found = trials(in_tmp / "sweeps/lora")
    values = [float(one["val_loss"]) for one in found]
    assert len(values) == 2
    assert values == sorted(values)
    for one, value in zip(found, values, strict=True):
        run = in_tmp / f"sweeps/lora/trials/{int(one['trial']):03d}/001"
        assert json.loads((run / "summary.json").read_text())["val_loss"] == value
        used = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]
        assert used["adaptation"]["init_args"]["rank"] == int(one[RANK])
        assert used["optimizer"]["init_args"]["lr"] == float(one[RATE])
    assert (in_tmp / "sweeps/lora/sweep.png").stat().st_size > 10_000
    again = (in_tmp / "sweeps/lora/best.yaml").read_text().splitlines()[0].removeprefix("# python -m lit_fm ")
    assert lit(*shlex.split(again)).code == 0
    assert json.loads((in_tmp / "runs/lora/001/summary.json").read_text())["val_loss"] == values[0]
    more = lit(*command, "--trials=3")  # one more, and nothing anew
    assert more.code == 0, more.err
    assert more.out.count("the best so far") == 1
    assert {float(one["val_loss"]) for one in trials(in_tmp / "sweeps/lora")} > set(values)
    other = lit(*command, "--data.batch_size=4")
    assert "sweeps/lora holds a sweep with other settings" in other.err


def test_keys_may_be_typed_as_on_the_command_line_and_the_best_are_written_as_a_config(lit, in_tmp, llama, space):
    over = {"model.adaptation": {"values": ["adapt/ia3.yaml"]}, "data.seed": {"values": [3]}}
    done = lit(*space(over=over, trials=2), *SMALL, "--model.backbone", llama)
    assert done.code == 0, done.err
    assert "the same as trial 0" in done.out  # what was tried is not tried again
    best = yaml.safe_load((in_tmp / "sweeps/lora/best.yaml").read_text())
    assert best == {
        "model": {"init_args": {"adaptation": str(ROOT / "configs/adapt/ia3.yaml")}}, "data": {"init_args": {"seed": 3}}
    }  # fmt: skip
    printed = lit("fit", "--config", "lora.yaml", "--config", "sweeps/lora/best.yaml", "--print_config").out
    assert yaml.safe_load(printed)["model"]["init_args"]["adaptation"]["class_path"] == "lit_fm.IA3"


def test_a_trial_that_fails_is_told_with_its_reason_and_the_others_go_on(lit, in_tmp, llama, space):
    over = {"data.source": {"values": ["nowhere.jsonl", "rows.jsonl"]}, "model.adaptation.rank": {"min": 2, "max": 9}}
    done = lit(*space(over=over, trials=5), *SMALL, "--model.backbone", llama)
    assert done.code == 0, done.err
    found = {one["data.source"]: one for one in trials(in_tmp / "sweeps/lora")}
    assert "nowhere.jsonl" in found["nowhere.jsonl"]["failed"]
    assert found["nowhere.jsonl"]["val_loss"] == ""
    assert float(found["rows.jsonl"]["val_loss"]) > 0
    assert "failed: " in done.out
    assert yaml.safe_load((in_tmp / "sweeps/lora/best.yaml").read_text())["data"]["init_args"]["source"] == "rows.jsonl"


def sweeping(folder, arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "lit_fm", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def until(found, within=120):
    end = time.monotonic() + within
    while not found():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_within_a_trial_goes_on_to_the_same_end(lit, in_tmp, llama, space, kill):
    command = [*space(), *SMALL, "--model.backbone", llama, "--trainer.max_steps", "60", "--out"]
    assert lit(*command, "straight").code == 0
    first = sweeping(in_tmp, [*command, "killed"])
    trial = in_tmp / "killed/trials/001/001"
    until(lambda: list(trial.glob("checkpoints/step=*")))
    first.send_signal(kill)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[kill], said
    ended = (in_tmp / "killed/trials/000/001/summary.json").stat().st_mtime_ns
    done = lit(*command, "killed")
    assert done.code == 0, done.err
    assert trials(in_tmp / "killed") == trials(in_tmp / "straight")
    assert (in_tmp / "killed/trials/000/001/summary.json").stat().st_mtime_ns == ended
    assert len(list((in_tmp / "killed/trials").glob("*/*/"))) == 2  # the trial went on where it was
    assert ("Going on with" in (in_tmp / "killed/trials/001.txt").read_text()) == (kill != signal.SIGKILL)


def test_w_and_b_gets_a_config_whose_commands_are_understood(lit, in_tmp, space):
    from wandb.apis.public.sweeps import _validate_config_and_fill_distribution

    over = {**OVER, "data.batch_size": {"min": 2, "max": 8}, "trainer.gradient_clip_val": {"min": 0.5, "max": 2}}
    done = lit(*space(over=over), *SMALL, "--wandb")
    assert done.code == 0, done.err
    assert "wandb sweep --project lit_fm sweeps/lora/wandb.yaml" in done.out
    config = yaml.safe_load((in_tmp / "sweeps/lora/wandb.yaml").read_text())
    assert _validate_config_and_fill_distribution(config) == config
    assert config["metric"] == {"name": "val_loss", "goal": "minimize"}
    assert config["parameters"] == {
        RATE: {"distribution": "log_uniform_values", "min": 0.001, "max": 0.01},
        RANK: {"values": [2, 4]},
        "data.batch_size": {"distribution": "int_uniform", "min": 2, "max": 8},
        "trainer.gradient_clip_val": {"distribution": "uniform", "min": 0.5, "max": 2},
    }
    assert config["command"][:5] == ["${env}", "python", "-m", "lit_fm", "fit"]
    drawn = [f"--{RATE}=0.0042", f"--{RANK}=4", "--data.batch_size=5", "--trainer.gradient_clip_val=1.25"]
    words = [w for word in config["command"][4:] for w in (drawn if word == "${args}" else [word])]
    printed = yaml.safe_load(lit(*words, "--print_config").out)
    assert printed["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.0042
    assert printed["trainer"]["gradient_clip_val"] == 1.25


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"over": {"model.adaptation.rnak": {"values": [2]}}}, [], "did you mean 'rank'?"),
        ({"over": {"data.bacth_size": {"values": [2]}}}, [], "did you mean 'batch_size'?"),
        ({"over": {RANK: {"min": 0, "max": 4}}}, [], "rank"),
        ({"over": {RANK: {"values": [4, "four"]}}}, [], "rank: expected int, got 'four'"),
        ({"over": {RANK: {"min": 8, "max": 4}}}, [], "min 8 must be a number below max 4"),
        ({"over": {RATE: {"min": 0, "max": 1, "log": True}}}, [], "a min above 0"),
        ({"over": {RATE: {"min": 0.1}}}, [], "give {values: [...]} or {min: ..., max: ..., log: true}"),
        ({"over": {RATE: {"values": []}}}, [], "give a list of"),
        ({"over": {"model.adaptation": {"values": ["lit_fm.LoRA"]}, "model.adaptation.rank": {"values": [2]}}}, [],
         "is a part of"),
        ({"over": {"run.root": {"values": ["x"]}}}, [], "what the sweep itself sets"),
        ({"over": {3: {"values": ["x"]}}}, [], "give settings by key"),
        ({"metric": "exact_macth"}, [], "did you mean 'exact_match'?"),
        ({"goal": "lowest"}, [], "give min or max"),
        ({"goal": None}, [], "goal is lacking"),
        ({"trails": 3}, [], "did you mean 'trials'?"),
        ({"trials": 0}, [], "trials is 0"),
        ({}, ["--trials=none"], "must be a number"),
        ({}, ["--data.sorce=x"], "did you mean 'source'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_one_message_before_any_trial(lit, in_tmp, space, changes, options, message):
    done = lit(*space(**changes), *options)
    assert done.code != 0
    assert message in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert not (in_tmp / "sweeps").exists()


def test_a_metric_that_no_trial_has_ends_the_sweep_and_says_what_there_is(lit, llama, space):
    done = lit(*space(metric="rougeL", goal="max"), *SMALL, "--model.backbone", llama)
    assert done.code == 1
    assert "'rougeL' is not in the summary.json of trial 0; it has train_loss, val_loss" in done.err


def test_a_sweep_that_is_no_yaml_is_one_clear_error(in_tmp):
    (in_tmp / "space.yaml").write_text("over: {a: [")
    with pytest.raises(ValueError, match=r"space.yaml is not valid YAML: "):
        read(in_tmp / "space.yaml")


def test_the_best_config_can_be_read_whatever_the_command_was(in_tmp, space):
    space()
    (in_tmp / "base.yaml").write_text("{}")
    trial = Trial(0, {RATE: 2e-3, RANK: 2}, 0.5)
    report([trial], read(in_tmp / "space.yaml"), in_tmp, ["--data.template", "Q: {question}\nA: [answer"])
    found = yaml.safe_load((in_tmp / "best.yaml").read_text())
    assert found == {
        "model": {"init_args": {"optimizer": {"init_args": {"lr": 2e-3}}, "adaptation": {"init_args": {"rank": 2}}}}
    }


def test_all_ends_and_values_are_tried_out_before_a_sweep():
    over = {"a": Range(1, 3), "b": Range(values=("x", "y", "z"))}
    assert corners(over) == [{"a": 1, "b": "x"}, {"a": 3, "b": "y"}, {"a": 1, "b": "z"}]


def test_short_names_tell_keys_apart():
    keys = ["model.optimizer.lr", "data.rows", "forgetting.tasks.rows", "rows"]
    assert labels(keys) == dict(zip(keys, ["lr", "data.rows", "tasks.rows", "rows"], strict=True))


def test_the_shipped_sweep_is_understood_and_choosing_on_the_test_split_is_told(in_tmp, space):
    shipped = read(ROOT / "configs/sweep.yaml")
    assert (shipped.metric, shipped.trials, shipped.on_test) == ("val_loss", 12, False)
    space(metric="exact_match", goal="max")
    assert read(in_tmp / "space.yaml").on_test
