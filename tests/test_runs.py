"""The run folder, and what can be done with it afterwards."""

import json
import logging
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import QUICK, ROOT, SHARED, command
from safetensors.torch import load_file

from lit_fm.checkpoint_io import read
from lit_fm.track import Guarded, LocalMetrics

FIT = ["fit", "--config", "lora.yaml", *QUICK, "--trainer.max_steps", "4"]


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def adapter(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_a_run_leaves_all_that_it_promises(lit, in_tmp):
    done = lit(*FIT)
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "lora" / "001"
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "adapter", "summary.json"} <= names
    assert {"exact_match_before", "exact_match", "seconds", "peak_memory_bytes", "learnable_parameters"} <= set(
        summary(run)
    )
    assert len(summary(run)["generations"]) == 5
    told = json.loads((run / "run.json").read_text())
    assert told["command"].startswith("python -m lit_fm fit --config")
    assert told["packages"]["torch"] == torch.__version__
    in_git = any((folder / ".git").exists() for folder in (ROOT, *ROOT.parents))
    assert set(told["git"] or {}) == ({"commit", "dirty"} if in_git else set())
    assert told["data"]["train"]["rows"] == 64
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if "train/loss" in s] == [0, 1, 2, 3]
    assert "exact match after" in done.out
    assert "372,736 of 1,848,736 parameters (20.16%)" in done.out
    assert f"generate --model {run.relative_to(in_tmp)}" in done.out


def test_the_saved_config_runs_again_and_gives_the_same_weights(lit, in_tmp):
    assert lit(*FIT).code == 0
    first = in_tmp / "runs" / "lora" / "001"
    done = lit("fit", "--config", first / "config.yaml")
    assert done.code == 0, done.err
    second = in_tmp / "runs" / "lora" / "002"
    a, b = adapter(first), adapter(second)
    assert all(torch.equal(a[name], b[name]) for name in a)
    configs = [yaml.safe_load((folder / "config.yaml").read_text()) for folder in (first, second)]
    assert configs[0] == configs[1]


def test_workers_change_nothing(lit, in_tmp):
    assert lit(*FIT).code == lit(*FIT, "--data.workers", "2").code == 0
    a, b = (adapter(in_tmp / "runs" / "lora" / n) for n in ("001", "002"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_another_seed_gives_other_weights(lit, in_tmp):
    assert lit(*FIT).code == lit(*FIT, "--seed_everything", "5").code == 0
    a, b = (adapter(in_tmp / "runs" / "lora" / n) for n in ("001", "002"))
    assert not any(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_holds_what_learns_and_nothing_frozen(lit, in_tmp):
    assert lit(*FIT).code == 0
    run = in_tmp / "runs" / "lora" / "001"
    [checkpoint] = (run / "checkpoints").glob("*.ckpt")
    state = read(checkpoint)["state_dict"]
    assert sum(t.numel() for t in state.values()) == summary(run)["learnable_parameters"]
    assert all("lora_" in name for name in state)
    learnt_bytes = 4 * summary(run)["learnable_parameters"]
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 3.1 * learnt_bytes  # with AdamW's two moments


def test_validate_test_and_predict_work_from_a_run(lit, in_tmp):
    assert lit(*FIT, "--trainer.max_steps", "8").code == 0  # a whole epoch, with its validation
    run = in_tmp / "runs" / "lora" / "001"
    done = lit("test", "--run", run)
    assert done.code == 0, done.err
    found = json.loads((run / "test.json").read_text())
    assert found["exact_match"] == summary(run)["exact_match"]
    assert lit("test", "--run", run).code == 0
    assert (run / "test-2.json").is_file()
    done = lit("validate", "--run", run)
    assert done.code == 0, done.err
    assert json.loads((run / "validate.json").read_text())["val_loss"] == pytest.approx(
        summary(run)["val_loss"], rel=1e-6
    )
    (in_tmp / "new.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Prescription: {i} tab po qd\nPlain English:"}) + "\n" for i in "321")
    )
    done = lit("predict", "--run", run, "--data.test", "new.jsonl")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    assert [row["prompt"].split()[1] for row in rows] == ["3", "2", "1"]
    assert all(isinstance(row["prediction"], str) for row in rows)


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK"])
def test_a_run_that_fails_touches_no_other_run(lit, in_tmp, rank):
    assert lit(*FIT).code == 0
    before = sorted(in_tmp.rglob("*"))
    done = command(*FIT, "--model.adaptation.targets", "[nope]", cwd=in_tmp, **{rank: "1"})
    assert done.returncode == 1
    assert "unset them" in done.stderr
    assert command(*FIT, "--model.adaptation.targets", "[nope]", cwd=in_tmp).returncode == 1
    assert sorted(in_tmp.rglob("*")) == before


@pytest.mark.slow
def test_two_processes_run_with_checkpoints_along_the_way(in_tmp):
    done = command(
        *FIT, "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.accelerator", "cpu",
        "--run.save_every", "2",
        cwd=in_tmp,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = (in_tmp / "runs" / "lora").iterdir()
    assert sorted(p.name for p in (run / "checkpoints").iterdir())[-1] == "step=4.ckpt"
    assert summary(run)["scored_examples"] == 8
    assert len((run / "scored.jsonl").read_text().splitlines()) == 8
    assert lit_test(run, in_tmp)["exact_match"] == summary(run)["exact_match"]


def lit_test(run, cwd):
    done = command("test", "--run", run, "--trainer.devices", "1", "--trainer.strategy", "auto", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads((run / "test.json").read_text())


def test_a_chat_run_exports_the_template_that_it_was_trained_with(lit, in_tmp):
    turns = [{"role": "user", "content": "Say yes"}, {"role": "assistant", "content": "yes"}]
    (in_tmp / "chat.jsonl").write_text((json.dumps({"messages": turns}) + "\n") * 40)
    done = lit(*FIT, "--data.source", "chat.jsonl")
    assert done.code == 0, done.err
    from lit_fm.backbone import load_tokenizer

    tokenizer = load_tokenizer(str(in_tmp / "runs" / "lora" / "001" / "adapter"))
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "<s>User: Say yes\nAssistant: yes</s>\n"
    done = lit("generate", "--model", "runs/lora/001", "--chat", "true", "--prompt", "Say yes", "--max_new_tokens", "3")
    assert done.code == 0, done.err


def test_a_checkpoint_of_another_adaptation_is_refused(lit, in_tmp):
    assert lit(*FIT).code == 0
    run = in_tmp / "runs" / "lora" / "001"
    done = lit("test", "--run", run, "--model.adaptation", "lit_fm.Full")
    assert done.code == 1
    assert "this checkpoint does not fit" in done.err


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(lit, in_tmp, monkeypatch, caplog):
    from lightning.pytorch.loggers import CSVLogger

    calls = []

    def fails(self, metrics, step=None):
        calls.append(step)
        raise ConnectionError("no route")

    assert lit(*FIT).code == 0
    monkeypatch.setattr(CSVLogger, "log_metrics", fails)
    with caplog.at_level(logging.WARNING):
        done = lit(*FIT, "--run.tracker", "csv")
    assert done.code == 0, done.err
    assert len(calls) == 1
    assert "tracker csv failed and is left out" in caplog.text
    a, b = (adapter(in_tmp / "runs" / "lora" / n) for n in ("001", "002"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert "train/loss" in (in_tmp / "runs" / "lora" / "002" / "metrics.jsonl").read_text()


def test_a_tracker_that_cannot_even_start_is_left_out(tmp_path, caplog):
    def broken():
        raise RuntimeError("no service")

    tracker = Guarded(broken, "wandb")
    tracker.log_metrics({"loss": 1.0}, 1)
    tracker.log_rows("t", ["a"], [[1]])
    assert tracker.experiment is None
    tracker.finalize("success")
    assert caplog.text.count("failed") == 1


def test_local_metrics_are_one_object_a_line(tmp_path):
    local = LocalMetrics(tmp_path)
    local.log_metrics({"loss": 1.5}, 1)
    local.log_metrics({"loss": 0.5}, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.5), (2, 0.5)]


@pytest.mark.parametrize(("tracker", "file"), [("csv", "csv/metrics.csv"), ("tensorboard", "tensorboard/events*")])
def test_other_trackers_come_by_an_overlay(lit, in_tmp, tracker, file):
    options = [o for o in FIT if o not in ("--run.tracker", "none")]
    done = lit(*options, "--config", f"tracker/{tracker}.yaml")
    assert done.code == 0, done.err
    assert list((in_tmp / "runs" / "lora" / "001").glob(file))


@pytest.mark.slow
def test_wandb_is_the_default_and_goes_offline_by_itself(in_tmp):
    options = [o for o in FIT if o not in ("--run.tracker", "none")]
    env = {"WANDB_API_KEY": "", "HOME": str(in_tmp), "NETRC": str(in_tmp / "none")}
    script = "import os; os.environ.pop('WANDB_MODE', None); os.environ.pop('WANDB_API_KEY', None)\n"
    script += f"from lit_fm.cli import main; main({options!r})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=in_tmp, capture_output=True, text=True, check=False,
        env={**__import__("os").environ, **env, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = list((in_tmp / "runs" / "lora" / "001" / "wandb").glob("offline-run-*"))
    assert len(runs) == 1, "one tracked run a job"
    stored = b"".join(p.read_bytes() for p in runs[0].glob("*.wandb"))
    assert b"generations" in stored
    assert b"train/loss" in stored
    # The resolved config.
    assert any(path in stored for path in (b"lit_fm.adapt.lora.LoRA", b"lit_fm.LoRA"))
    assert list(runs[0].rglob("generations*.table.json"))
    assert b"lora-adapter" in stored  # an artifact


def test_the_same_command_twice_in_processes_of_their_own(in_tmp):
    done = [command(*FIT, cwd=in_tmp) for _ in range(2)]
    assert [d.returncode for d in done] == [0, 0], done[1].stderr
    a, b = (adapter(in_tmp / "runs" / "lora" / n) for n in ("001", "002"))
    assert all(torch.equal(a[name], b[name]) for name in a)


BAD = [
    (["--data.source", "missing.jsonl"], "there is no file or folder 'missing.jsonl'"),
    (["--data.source", "broken.jsonl"], "line 2 is not JSON"),
    (["--data.source", "fields.jsonl"], "the rows have the fields ['body', 'title']"),
    (["--data.source", "lacks.jsonl"], "row 2 has no field 'completion'; it has ['prompt']: add it"),
    (["--data.source", "empty.jsonl"], "has no rows"),
    (["--data.source", "answerless.jsonl"], "none of 28 train rows can be learnt from (28 x empty answer)"),
    (["--data.source", "smallworld/sentimant"], "did you mean 'sentiment'?"),
    (["--data.template", "{{prompt}}"], "has no answer"),
    (["--data.max_length", "100000"], "takes 512 tokens at most"),
    (["--model.backbone", "tiny-cllm"], "did you mean 'tiny-clm'?"),
    (["--model.backbone", "configless"], "is a folder without config.json"),
    (["--model.adaptation.targets", "[q_prj]"], "did you mean 'q_proj'?"),
    (["--model.adaptation.rank", "0"], "LoRA needs rank >= 1"),
    (
        ["--model.adaptation", "adapt/prompt.yaml", "--model.adaptation.tokens", "520"],
        "SoftPrompt takes 520 of the 512 positions",
    ),
    (["--model.adaptation", "adapt/prefix.yaml", "--model.adaptation.tokens", "505"], "so that 16 are left"),
    (
        [
            *("--model.adaptation", "lit_fm.Peft", "--model.adaptation.config"),
            '{"peft_type": "LORA", "init_lora_weights": "loftq"}',
        ],
        "loftq rounds the backbone, and no export holds that",
    ),
    (
        ["--model.adaptation", "lit_fm.Peft", "--model.adaptation.config", '{"peft_type": "POLY"}'],
        "POLY is not trained here",
    ),
    (["--data.metrics", '["tool_call"]'], "tool_call needs right answers that call a tool"),
    (["--data.source", "tags.jsonl", "--model.backbone", "tiny-clm"], "use lit_fm.TokenClassification"),
    (["--trainer.limit_train_batches=-2"], "limit_train_batches"),
    (["--data.batch_size", "0"], "data.batch_size 0 must be at least 1"),
    (["--data.test_share", "1.5"], "must leave rows to learn from"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(lit, in_tmp, args, message):
    (in_tmp / "broken.jsonl").write_text('{"prompt": "p", "completion": "c"}\n{"prompt": "p", "comple\n')
    (in_tmp / "fields.jsonl").write_text('{"title": "t", "body": "b"}\n')
    (in_tmp / "lacks.jsonl").write_text('{"prompt": "p", "completion": "c"}\n{"prompt": "p"}\n')
    (in_tmp / "empty.jsonl").write_text("\n")
    (in_tmp / "answerless.jsonl").write_text('{"prompt": "p", "completion": ""}\n' * 33)
    (in_tmp / "tags.jsonl").write_text('{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n' * 9)
    (in_tmp / "configless").mkdir()
    before = sorted(p.name for p in in_tmp.iterdir())
    done = lit(*FIT, *args)
    assert done.code == 1
    assert done.err.count("error:") == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert sorted(p.name for p in in_tmp.iterdir()) == before


# The story of README


@pytest.mark.slow
def test_lora_learns_to_read_prescriptions(lit, in_tmp):
    done = lit("fit", "--config", "lora.yaml", "--run.tracker", "none")
    assert done.code == 0, done.err
    found = summary(in_tmp / "runs" / "lora" / "001")
    assert found["exact_match_before"] < 0.05
    assert found["exact_match"] >= 0.9
    assert found["scored_examples"] == 200


# Real input


def falling(run):
    """Whether the mean loss of the last ten steps is below that of the first ten."""
    losses = [
        json.loads(line)["train/loss"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "train/loss" in line
    ]
    assert len(losses) == 50
    return sum(losses[-10:]) < sum(losses[:10])


REAL = {
    "gsm8k": ["gsm8k/train.jsonl", "--data.columns.prompt", "question", "--data.columns.completion", "answer"],
    "dolly": ["chat/litgpt_dolly.json"],
    "messages": ["chat/kto_en_demo.json"],
    "banking77": ["banking77/train.csv", "--data.columns.prompt", "text", "--data.columns.completion", "category"],
}


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("backbone", ["tiny-clm", "llama", "qwen3", "gpt2"])
def test_real_files_train_with_a_falling_loss(lit, in_tmp, make_backbone, name, backbone):
    from conftest import causal_configs

    folder = backbone if backbone == "tiny-clm" else make_backbone(backbone, causal_configs()[backbone])
    source, *columns = REAL[name]
    done = lit(
        "fit", "--config", "lora.yaml", "--data.source", SHARED / source, *columns, "--model.backbone", folder,
        "--trainer.max_steps", "50", "--data.batch_size", "4", "--run.tracker", "none", "--score.examples", "4",
        "--data.rows", "400",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "dropped" in done.out
    assert falling(in_tmp / "runs" / "lora" / "001")
