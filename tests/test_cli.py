"""The one door: verbs, configs by name, overlays, and errors that help."""

import subprocess
import sys

import pytest
import yaml
from conftest import ROOT, command

from lit_fm.arguments import find_config


def test_help_names_every_verb_and_imports_nothing_heavy():
    script = (
        "import sys; from lit_fm.cli import main; main(['--help']);"
        "heavy = {'torch', 'lightning', 'transformers', 'jsonargparse', 'numpy', 'wandb'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in ("fit", "validate", "test", "predict", "generate", "train-tokenizer"))


def test_fit_help_builds_one_parser_and_imports_neither_tracker_nor_adapters(in_tmp):
    script = (
        "import sys; from lit_fm.cli import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "late = {'wandb', 'peft', 'datasets', 'pandas', 'transformers.models.llama.modeling_llama'} & set(sys.modules)\n"
        "assert not late, late"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout
    assert "--score.examples" in done.stdout


def test_imports_are_not_collected_and_garbage_is():
    script = (
        "import gc; from lit_fm.imports import import_at_once\n"
        "before = sum(s['collections'] for s in gc.get_stats())\n"
        "import_at_once('lit_fm.trainer_cli')\n"
        "after, frozen = sum(s['collections'] for s in gc.get_stats()), gc.get_freeze_count()\n"
        "kept = [[]]; kept[0].append(kept); del kept\n"
        "print(after - before, frozen > 100_000, gc.isenabled(), gc.collect() > 0)\n"
        "import_at_once('lit_fm.trainer_cli'); print(gc.get_freeze_count() <= frozen)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split() == ["0", "True", "True", "True", "True"], done.stderr


def test_a_config_is_found_by_path_and_by_name(in_tmp):
    (in_tmp / "mine.yaml").write_text("trainer: {max_steps: 1}")
    assert find_config("mine.yaml").resolve() == in_tmp / "mine.yaml"
    assert find_config("lora.yaml") == ROOT / "configs" / "lora.yaml"
    assert find_config("lora") == ROOT / "configs" / "lora.yaml"
    assert find_config("pretrain/tiny-clm.yaml").is_file()
    (in_tmp / "lora.yaml").write_text("{}")
    assert find_config("lora.yaml").resolve() == in_tmp / "lora.yaml"


def test_later_configs_and_options_overlay_earlier_ones(lit, in_tmp):
    (in_tmp / "over.yaml").write_text(
        "trainer: {max_steps: 7}\nmodel: {init_args: {adaptation: {init_args: {rank: 3}}}}"
    )
    done = lit("fit", "--config", "lora.yaml", "--config", "over.yaml", "--data.batch_size", "5", "--print_config")
    assert done.code == 0, done.err
    config = yaml.safe_load(done.out)
    assert config["trainer"]["max_steps"] == 7
    assert config["model"]["init_args"]["adaptation"]["init_args"]["rank"] == 3
    assert config["data"]["init_args"]["batch_size"] == 5
    assert config["run"]["name"] == "lora"
    assert not (in_tmp / "runs").exists()


WRONG = [
    (["--model.adaptation.rnak", "4"], "model.adaptation.rnak: there is no such setting: did you mean 'rank'?"),
    (["--model.adaptation.rank", "four"], "model.adaptation.rank: expected int, got 'four'"),
    (["--model.adaptation", "LoRAA"], "model.adaptation: there is no class 'LoRAA': did you mean 'LoRA'?"),
    (
        ["--model.adaptation", "lit_fm.LoRAA"],
        "model.adaptation: there is no class 'lit_fm.LoRAA': did you mean 'LoRA'?",
    ),
    (["--data", "InstructionDat"], "data: there is no class 'InstructionDat': did you mean 'InstructionData'?"),
    (["--data.sorce", "x"], "data.sorce: there is no such setting: did you mean 'source'?"),
    (["--model.optimizer.lrr", "1"], "model.optimizer.lrr: there is no such setting: did you mean 'lr'?"),
    (["--trainer.max_step", "4"], "there is no option --trainer.max_step: did you mean 'trainer.max_steps'?"),
    (["--trainr.max_steps", "4"], "there is no option --trainr.max_steps: did you mean 'trainer.max_steps'?"),
    (["--trainer.max_steps", "some"], "trainer.max_steps: expected int, got 'some'"),
    (["--run.tracker", "wandbb"], "run.tracker: expected one of 'wandb', 'csv', 'tensorboard', 'none', got 'wandbb'"),
    (
        ["--config", "lorra.yaml"],
        "no config 'lorra.yaml', neither as a path nor in configs/: did you mean 'lora.yaml'?",
    ),
    (["--run", "runs/none"], "--run runs/none: there is no run"),
]


@pytest.mark.parametrize(("args", "message"), WRONG)
def test_a_wrong_option_is_one_short_message_with_the_nearest_right_name(lit, in_tmp, args, message):
    done = lit("fit", "--config", "lora.yaml", *args)
    assert done.code != 0
    assert message in done.err
    assert len(done.err.splitlines()) <= 2
    assert not list(in_tmp.iterdir())


WRONG_FILES = [
    ("model: {init_args: {adaptation: {init_args: {rnak: 3}}}}", "model.adaptation.rnak: there is no such setting"),
    (
        "model: {class_path: lit_fm.CausalML}",
        "model: there is no class 'lit_fm.CausalML': did you mean 'CausalLM'?",
    ),
    ("model: {class_path: no_such_module.Thing}", "there is no class 'no_such_module.Thing'"),
    ("trainer: {max_stepps: 4}", "trainer.max_stepps: there is no such setting: did you mean 'trainer.max_steps'?"),
    ("trainerr: {max_steps: 4}", "trainerr.max_steps: there is no such setting: did you mean 'trainer.max_steps'?"),
    ("trainer: {max_steps: [", "is not valid YAML"),
    ("trainer: 3", "trainer: expected settings of the Trainer, got 3"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_FILES)
def test_a_wrong_key_in_a_config_is_one_short_message(lit, in_tmp, text, message):
    (in_tmp / "over.yaml").write_text(text)
    done = lit("fit", "--config", "lora.yaml", "--config", "over.yaml")
    assert done.code != 0
    assert message in done.err
    assert len(done.err.splitlines()) <= 3


def test_options_hold_wherever_they_stand(lit):
    done = lit("fit", "--trainer.max_steps", "7", "--data.source", "x.jsonl", "--config", "lora.yaml", "--print_config")
    config = yaml.safe_load(done.out)
    assert (config["trainer"]["max_steps"], config["data"]["init_args"]["source"]) == (7, "x.jsonl")


def test_an_unknown_verb_says_the_nearest(lit):
    done = lit("fitt")
    assert done.code == 2
    assert "did you mean 'fit'" in done.err


def test_without_a_config_it_says_where_to_start(lit):
    done = lit("fit")
    assert done.code == 2
    assert "--config lora.yaml" in done.err


def test_the_module_is_a_command():
    done = command("--version", cwd=ROOT)
    assert done.returncode == 0
    assert done.stdout.strip()
