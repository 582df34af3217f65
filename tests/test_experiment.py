"""Methods on the same data, budget and seeds, run and compared by one command."""

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
from conftest import ROOT, SHARED, command, llama_config
from test_configs import readme_commands
from test_icl import REAL

from lit_fm.arguments import find_config
from lit_fm.compare.cells import take_device
from lit_fm.compare.experiment import keep_fit, read_experiment
from lit_fm.compare.verb import asked
from lit_fm.parsed import Parsed

SMALL = {
    "fit": {
        "model": {
            "class_path": "lit_fm.CausalLM",
            "init_args": {
                "backbone": "tiny-clm",
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
            },
        },
        "data": {
            "class_path": "lit_fm.InstructionData",
            "init_args": {"source": "smallworld/sentiment:200", "batch_size": 8},
        },
        "trainer": {"max_steps": 3},
        "score": {"examples": 24},
        "forgetting": {"examples": 4, "tasks": {"names": {"source": "smallworld/name-question:100"}}},
    },
    "shots": [0, 1],
    "seeds": 2,
    "methods": {"full": {}, "LoRA, small": {"model.adaptation": "adapt/lora.yaml"}, "many": {"mixed": True}},
}


def written(folder, **changes):
    """A config of an experiment, with changes."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def rows_of(out):
    return {row["method"]: row for row in csv.DictReader((out / "table.csv").open())}


def ended(out):
    """When each run ended."""
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/summary.json")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": {}}, "there is no 'method': did you mean 'methods'"),
        ({"methods": None}, "expected `fit:`, settings of all runs, and `methods:`"),
        ({"shots": [-1]}, "expected numbers, such as shots"),
        ({"seeds": 0}, "expected numbers, such as shots"),
        ({"shots": 4}, "expected numbers, such as shots"),
        ({"backbones": "gpt2"}, "backbones 'gpt2': expected a list"),
        ({"methods": {"lora": {}, "LoRA+": {}}}, "is the second 'lora', by which its folder is called"),
        ({"methods": {"\u65b9\u6cd5": {}}}, "needs a letter of a-z or a digit"),
        ({"methods": {"lora": "adapt/lora.yaml"}}, "lora is 'adapt/lora.yaml': expected options of fit"),
    ],
)
def test_a_config_that_says_something_else_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_experiment(written(tmp_path, **changes))


@pytest.mark.parametrize("name", ["compare.yaml", "compare-t5.yaml"])
def test_our_experiments_compare_prompting_with_all_kinds_of_tuning(name):
    found = read_experiment(find_config(name))
    kinds = {"prompt-tuning", "prefix", "ia3", "norms", "adapter", "lora", "dora", "qlora", "full", "full-multi-task"}
    assert kinds == set(found.methods)
    assert {0, 1} < set(found.shots)
    assert found.seeds == 2


@pytest.mark.parametrize("line", [c for c in readme_commands() if " compare " in c and "--config" in c])
def test_the_experiments_of_readme_are_understood(line):
    found = asked(shlex.split(line)[4:])
    assert found.experiment.methods
    assert (found.metric == "chrf") == ("--metric chrf" in line)
    assert Parsed(["--config", "lora.yaml", *found.options]).settings["model"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0 must be a number of at least 1"),
        (["--metric"], "--metric has no value"),
        (["--methods", "fully"], "there is no 'fully': did you mean 'full'"),
        (["--data.sorce", "x"], "data.sorce"),
    ],
)
def test_what_cannot_be_is_one_message_before_any_run(lit, in_tmp, options, message):
    done = lit("compare", "--config", written(in_tmp), "--out", "out", *options)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(in_tmp.glob("out/runs/*"))
    assert not (in_tmp / "out" / "experiment.json").exists()  # the right command may use the folder


def test_settings_of_fit_that_changed_since_a_run_began_are_refused_and_kept(in_tmp):
    def run(**trainer):
        fit = {**SMALL["fit"], "trainer": {"max_steps": 3, **trainer}}
        keep_fit(in_tmp / "fit.yaml", fit)

    run(max_steps=5)
    run()  # nothing has begun
    written = (in_tmp / "fit.yaml").read_text()
    (in_tmp / "runs/full-seed0/001").mkdir(parents=True)
    (in_tmp / "runs/full-seed0/001/config.yaml").write_text("")
    run()
    with pytest.raises(
        ValueError, match=r"other settings of fit \(trainer.max_steps 3 -> 4\): give another folder by --out"
    ):
        run(max_steps=4)
    assert (in_tmp / "fit.yaml").read_text() == written


def test_nothing_to_run_and_yaml_that_is_none_are_one_clear_error(lit, in_tmp):
    empty = lit("compare", "--config", written(in_tmp, methods={}, shots=[]), "--out", "out")
    assert (empty.code, empty.err) == (1, "error: there is nothing to run: name methods, or shots.\n")
    (in_tmp / "small.yaml").write_text("fit: {a: [\nmethods: x")
    assert "small.yaml is not valid YAML" in lit("compare", "--config", "small.yaml").err


def test_where_no_run_ends_the_first_reason_is_told(lit, in_tmp):
    done = lit("compare", "--config", written(in_tmp, methods={"full": {}}, seeds=1), "--model.backbone", "tiny-clmm")
    assert done.code == 1
    assert "no run ended; of prompting: there is no backbone 'tiny-clmm'" in done.err


def test_a_mixed_method_needs_tasks_that_are_held_out(lit, in_tmp):
    fit = {**SMALL["fit"], "forgetting": {}}
    done = lit("compare", "--config", written(in_tmp, fit=fit), "--out", "out")
    assert "give forgetting.tasks in fit" in done.err
    taken = {**SMALL["fit"], "forgetting": {"tasks": {"target": {"source": "smallworld/name-question:100"}}}}
    done = lit("compare", "--config", written(in_tmp, fit=taken), "--out", "other")
    assert "mixed calls its own task 'target': rename that of forgetting.tasks" in done.err


def test_runs_at_once_have_a_device_each(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for visible, slots in ((None, ["0", "1", "0"]), ("4,6", ["4", "6", "4"])):
        for slot, expected in enumerate(slots):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
            if not visible:
                monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
            take_device(slot)
            assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """An experiment that was killed in its middle and started again, and what its runs were when it was killed."""
    folder = tmp_path_factory.mktemp("experiment")
    args = ("compare", "--config", str(written(folder)), "--out", "out", "--workers", "2")
    begun = subprocess.Popen(
        [sys.executable, "-m", "lit_fm", *args], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    deadline = time.monotonic() + 240
    while len(ended(folder / "out")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    before = ended(folder / "out")
    done = command(*args, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, args, before


@pytest.mark.slow
def test_an_experiment_that_was_killed_repeats_nothing_and_fills_all_rows(experiment):
    folder, args, before = experiment
    out = folder / "out"
    assert 2 <= len(before) < 6
    assert before.items() <= ended(out).items()
    assert len(ended(out)) == 6
    rows = rows_of(out)
    assert set(rows) == {"zero-shot", "1-shot", "full", "lora-small", "many"}
    assert rows["lora-small"]["seeds"] == rows["many"]["seeds"] == "2"
    assert float(rows["full"]["learnable_parameters"]) > float(rows["lora-small"]["learnable_parameters"])
    page = (out / "index.html").read_bytes()
    again = command(*args, cwd=folder)
    assert "7 runs, 7 of which have ended" in again.stdout
    assert (out / "index.html").read_bytes() == page
    assert ended(out).keys() == {path for path in ended(out) if path.parent.name == "001"}


@pytest.mark.slow
def test_many_tasks_are_compared_on_the_examples_of_the_one(experiment):
    out = experiment[0] / "out"
    scored = {
        name: [json.loads(line) for line in (out / f"runs/{name}-seed0/001/scored.jsonl").read_text().splitlines()]
        for name in ("full", "many")
    }
    alone, mixed = ({(row["row"], row["prompt"]) for row in rows} for rows in scored.values())
    assert alone == mixed
    assert len(alone) == 24


@pytest.mark.slow
def test_another_experiment_does_not_go_into_the_folder_of_this_one(experiment):
    folder, args, _ = experiment
    done = command(*args, "--trainer.max_steps", "4", cwd=folder)
    assert done.returncode == 1
    assert "has other settings (none instead of --trainer.max_steps 4): give another folder by --out" in done.stderr


@pytest.mark.slow
def test_a_method_that_fails_is_told_and_left_out(tmp_path):
    methods = {"full": {}, "broken": {"trainer.precision": "16-true", "model.optimizer.lr": -1.0}}
    args = ("compare", "--config", str(written(tmp_path, methods=methods, shots=[], seeds=1)), "--out", "out")
    done = command(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "broken-seed0 is left out, since it failed: " in done.stdout
    assert set(rows_of(tmp_path / "out")) == {"full"}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("name", REAL)
def test_real_tasks_are_compared(tmp_path, make_backbone, name):
    fit = {
        "model": SMALL["fit"]["model"],
        "data": {"class_path": "lit_fm.InstructionData"},
        "trainer": {"max_steps": 2},
    }
    methods = {"full": {}, "lora": {"model.adaptation": "adapt/lora.yaml"}}
    config = written(tmp_path, fit=fit, methods=methods, shots=[0, 1], seeds=1)
    options = [str(word) for word in REAL[name] if word not in ("--selection", "balanced", "nearest")]  # icl's own
    done = command(
        "compare", "--config", config, "--out", "out", "--workers", "2", "--data.source", SHARED / options[0], *options[1:],
        "--data.batch_size", "2", "--data.rows", "400", "--data.max_length", "4096", "--score.examples", "8",
        "--model.backbone", make_backbone("llama-long", llama_config(max_position_embeddings=4096)), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(rows_of(tmp_path / "out")) == {"zero-shot", "1-shot", "full", "lora"}
    metric = {"gsm8k": "number", "scitldr": "rouge1"}.get(name, "exact_match")
    assert all(0 <= float(row[metric]) <= 1 for row in rows_of(tmp_path / "out").values())
    page = (tmp_path / "out/index.html").read_text()
    assert "8 test examples" in page or ">8<" in page
