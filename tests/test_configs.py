"""Every shipped config runs, README's options exist, and the package takes configs and zoo along."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile

import pytest
import yaml
from conftest import GUIDE, QUICK, ROOT, command, llama_config

CONFIGS = ROOT / "configs"
WHOLE = [path for path in sorted(CONFIGS.rglob("*.yaml")) if "data" in yaml.safe_load(path.read_text())]
ADAPTATIONS = sorted((CONFIGS / "adapt").glob("*.yaml"))
MIXED = ("sentiment", "headline", "shorthand", "phrases", "calls")
SMALL = {
    "lit_fm.InstructionData": ["--data.rows", "64", "--data.batch_size", "4"],
    "lit_fm.Mixture": ["--data.batch_size", "4", *(f"--data.tasks.{t}.rows=64" for t in MIXED)],
    "lit_fm.TextCorpus": ["--data.documents", "300", "--data.batch_size", "4"],
}


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_every_whole_run_takes_two_steps(lit, path):
    small = SMALL[yaml.safe_load(path.read_text())["data"]["class_path"]]
    done = lit(
        "fit", "--config", path.relative_to(CONFIGS), *small, "--trainer.max_steps", "2", "--run.tracker", "none",
        "--score.examples", "4",
    )  # fmt: skip
    assert done.code == 0, done.err


@pytest.mark.parametrize("path", ADAPTATIONS, ids=lambda path: path.name)
def test_every_adaptation_s_file_runs_by_the_command_that_it_opens_with(lit, in_tmp, path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 8
    small = ("--data.rows", "64", "--data.batch_size", "4", "--trainer.max_steps", "2", "--score.examples", "4")
    done = lit(*shlex.split(lines[0])[4:], *small, "--run.tracker", "none")
    assert done.code == 0, done.err
    [run] = (in_tmp / "runs").glob("*/001")
    chosen = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["adaptation"]
    said = yaml.safe_load(path.read_text())
    assert chosen["class_path"] == said["class_path"]
    assert said.get("init_args", {}).items() <= chosen.get("init_args", {}).items()


OF_ONE_CPU = {"cpu", "bf16", "activation-checkpointing", "adamw", "adamw-8bit"}
OF_A_COMPILER = {"compile"}
OF_RANKS = {"ddp": 2, "fsdp": 2, "tensor-parallel": 2, "2d": 4}
OF_GPUS = {"gpu", "fp16", "fsdp-offload", "multi-node"}
"""Or of several machines: see test_launch."""


@pytest.mark.parametrize(
    "name", [*sorted(OF_ONE_CPU), *(pytest.param(name, marks=pytest.mark.slow) for name in OF_A_COMPILER)]
)
def test_an_overlay_of_the_trainer_runs_by_the_command_that_it_opens_with(lit, in_tmp, name):
    said = shlex.split((CONFIGS / "trainer" / f"{name}.yaml").read_text().splitlines()[0])[4:]
    small = ("--data.rows", "64", "--data.batch_size", "4", "--trainer.max_steps", "2", "--score.examples", "4")
    done = lit(*said, *small, "--run.tracker", "none", "--trainer.accelerator", "cpu")
    assert done.code == 0, done.err


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_RANKS)
def test_an_overlay_of_several_ranks_starts_them_by_the_command_that_it_opens_with(in_tmp, make_backbone, name):
    said = shlex.split((CONFIGS / "trainer" / f"{name}.yaml").read_text().splitlines()[0])[4:]
    folder = make_backbone("four-heads", llama_config())
    done = command(
        *[folder if word == "Qwen/Qwen3-0.6B" else word for word in said], "--data.rows", "64", "--data.batch_size", "2",
        "--trainer.max_steps", "2", "--score.examples", "4", "--run.tracker", "none", "--trainer.accelerator", "cpu",
        cwd=in_tmp,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (told,) = in_tmp.glob("runs/*/001/run.json")
    assert json.loads(told.read_text())["hardware"]["processes"] == OF_RANKS[name]


def test_every_overlay_of_the_trainer_is_tried_or_of_gpus():
    names = {path.stem for path in (CONFIGS / "trainer").glob("*.yaml")}
    assert names == OF_ONE_CPU | OF_A_COMPILER | set(OF_RANKS) | OF_GPUS


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_config_opens_with_the_command_that_uses_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith(("# python -m lit_fm ", "# kubectl apply -f configs/cluster/"))
    assert path.relative_to(CONFIGS).as_posix() in first


def commands_of(page, *starts):
    """The lines of a page's blocks that begin so."""
    blocks = re.findall(r"^```(\S*).*?\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for kind, block in blocks if kind in ("", "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(starts)]


def readme_commands():
    return commands_of(GUIDE, "python -m lit_fm")


@pytest.mark.parametrize("command", [c for c in readme_commands() if " sweep " in c])
def test_the_sweeps_of_readme_are_understood(lit, command):
    done = lit(*shlex.split(command)[3:], "--wandb")  # which starts nothing where nobody is logged in
    assert done.code == 0, done.err
    assert "wandb sweep" in done.out


def test_the_overlay_of_forgetting_runs_by_the_command_that_it_opens_with(lit, in_tmp):
    said = shlex.split((CONFIGS / "forgetting.yaml").read_text().splitlines()[0])[4:]
    small = ("--data.rows", "64", "--data.batch_size", "4", "--trainer.max_steps", "2", "--forgetting.examples", "9")
    done = lit(*said, *small, "--run.tracker", "none", "--score.examples", "4")
    assert done.code == 0, done.err
    found = json.loads((in_tmp / "runs/full/001/summary.json").read_text())["forgetting"]
    assert all(one["before"] > 0.2 for one in found["tasks"].values())  # what is not there cannot be forgotten


def test_readme_shows_fits_tests_and_answers():
    verbs = {shlex.split(command.replace("$'", "'"))[3] for command in readme_commands()}
    assert {"fit", "test", "predict", "generate", "icl", "evaluate"} <= verbs


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_clone(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "lit_fm/_share/configs/lora.yaml" in names
    assert "lit_fm/compare/page.html.jinja" in names
    assert "lit_fm/_share/zoo/tiny-clm/model.safetensors" in names
    done = subprocess.run(
        [sys.executable, "-m", "lit_fm", "fit", "--config", "lora.yaml", *QUICK, "--trainer.max_steps", "2"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "lora" / "001" / "summary.json").is_file()
