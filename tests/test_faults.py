"""What a run does when something goes wrong that is not its own fault: it says so, keeps what it has, and loses nothing."""

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
import torch
import yaml
from conftest import ROOT
from forks import differs, outcome, ran, ranked
from transformers import AutoModelForCausalLM

from lit_fm.checkpoint import newest_verified
from lit_fm.checkpoint_io import read
from lit_fm.credentials import check_no_credentials

FIT = (
    "fit --config lora.yaml --data.rows 40 --data.batch_size 4 --score.examples 0 --trainer.limit_val_batches 0 "
    "--trainer.max_steps 6 --run.save_every 2 --trainer.max_epochs 9 "
)
QUIET = FIT + "--run.tracker none "


# Losses and gradients that are not finite.


def bad_at(*steps, rank=None):
    """The loss of these optimizer steps is not a number, on one rank or all."""

    def hook(here=0):
        from lit_fm.objectives.causal import CausalLM

        real = CausalLM.token_losses

        def token_losses(self, batch):
            total, count = real(self, batch)
            bad = self.trainer.training and self.trainer.global_step in steps and rank in (None, here)
            return (total * float("nan") if bad else total), count

        CausalLM.token_losses = token_losses

    return hook


def test_a_bad_step_stops_the_run_with_its_batch_kept_and_the_checkpoint_before_it(tmp_path):
    code, said = ran(tmp_path, QUIET, bad_at(3))
    assert code == 1
    assert "the loss is nan" in said
    assert "Traceback" not in said
    run = tmp_path / "runs/lora/001"
    assert newest_verified(run)[0].stem == "step=2"
    (batch,) = torch.load(run / "bad-step=3/rank-0.pt", weights_only=True)
    rows = [json.loads(line)["read"] for line in (run / "bad-step=3/rank-0.jsonl").read_text().splitlines()]
    assert len(rows) == len(batch["input_ids"]) == 4
    assert all("Prescription:" in row for row in rows)


def test_bad_steps_are_left_out_as_far_as_allowed(tmp_path):
    code, said = ran(tmp_path, QUIET + "--run.skip_steps 2", bad_at(1, 3))
    assert code == 0, said
    assert "Left out, 2 of at most 2" in said.replace("\n", " ")
    weights = outcome(tmp_path, 6)[0]
    assert all(torch.isfinite(weight).all() for weight in weights.values())
    steps = {int(of["step"]) for of in outcome(tmp_path, 6)[1].values()}
    assert steps == {4}  # AdamW's own count: six, less those that were left out
    code, said = ran(tmp_path / "more", QUIET + "--run.skip_steps 2", bad_at(1, 3, 4))
    assert code == 1
    assert "at optimizer step 4: training stops" in said


def test_a_run_that_left_out_steps_goes_on_to_the_last_bit(tmp_path):
    arguments = QUIET + "--run.skip_steps 2 "
    assert ran(tmp_path / "straight", arguments, bad_at(1, 4))[0] == 0
    assert ran(tmp_path / "stopped", arguments, bad_at(1, 4, 5))[0] == 1
    code, said = ran(tmp_path / "stopped", arguments, bad_at(1, 4))
    assert code == 0, said
    assert differs(outcome(tmp_path / "stopped", 6)[:3], outcome(tmp_path / "straight", 6)[:3]) == ""
    assert "Left out, 2 of at most 2" in said.replace("\n", " ")  # the first one is remembered


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_bad_loss_on_one_rank_stops_all(tmp_path, strategy):
    arguments = QUIET + f"--config trainer/{strategy}.yaml --trainer.devices 2 --trainer.accelerator cpu"
    codes, said = ranked(tmp_path, arguments, 2, bad_at(3, rank=1))
    assert codes == [1, 1]
    assert "the loss is nan" in said
    assert {path.name for path in (tmp_path / "runs/lora/001/bad-step=3").glob("*.pt")} == {"rank-0.pt", "rank-1.pt"}


# Memory.


def test_a_step_that_does_not_fit_into_memory_says_what_to_change(tmp_path):
    def hook():
        from lit_fm.objectives.causal import CausalLM

        def token_losses(self, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines.")

        CausalLM.token_losses = token_losses

    code, said = ran(tmp_path, QUIET, hook)
    assert code == 1
    assert said.splitlines()[-1].startswith(
        "error: CUDA out of memory. Tried to allocate 20.00 GiB. The step does not fit"
    )
    assert "data.batch_size" in said
    assert "Traceback" not in said


# Trackers.


@pytest.mark.parametrize("where", ["__init__", "log_metrics", "finalize"])
def test_a_tracker_that_hangs_neither_stops_a_run_nor_keeps_it(tmp_path, where):
    def hangs():
        from lightning.pytorch.loggers import CSVLogger

        from lit_fm import track

        track.PATIENCE = 0.5
        track.log.addHandler(logging.StreamHandler(sys.stdout))

        def hang(*args, **kwargs):
            threading.Event().wait()

        setattr(CSVLogger, where, hang)

    assert ran(tmp_path / "without", QUIET)[0] == 0
    begun = time.monotonic()
    code, said = ran(tmp_path / "with", FIT + "--run.tracker csv", hangs)
    assert code == 0, said
    assert time.monotonic() - begun < 60
    assert said.count("the tracker csv failed and is left out from here on: it has not answered") == 1
    assert differs(outcome(tmp_path / "with", 6)[0], outcome(tmp_path / "without", 6)[0]) == ""


def test_a_tracker_gets_what_is_logged_in_order(tmp_path):
    from lightning.pytorch.loggers import Logger

    from lit_fm.track import Guarded

    told = []

    class Slow(Logger):
        name = version = "slow"

        def log_metrics(self, metrics, step=None):
            time.sleep(0.01)
            told.append((step, metrics["loss"]))

        def log_hyperparams(self, *args, **kwargs):
            pass

    tracker = Guarded(Slow, "slow")
    begun = time.monotonic()
    for step in range(20):
        tracker.log_metrics({"loss": step / 2}, step)
    assert time.monotonic() - begun < 0.1  # nobody waited
    tracker.finalize("success")
    assert told == [(step, step / 2) for step in range(20)]


# Security.


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_an_evil_checkpoint_is_refused_and_runs_nothing(tmp_path):
    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.ckpt", "plain.ckpt"):
        code, said = ran(tmp_path, f"{QUIET} --ckpt_path {name}")
        assert code == 1
        assert "it holds more than numbers and text" in said
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/last.ckpt", "https://127.0.0.1:9/last.ckpt", "s3://a/b.ckpt"])
def test_checkpoints_behind_addresses_are_not_read(tmp_path, address):
    with pytest.raises(ValueError, match="addresses are not read"):
        read(address)
    code, said = ran(tmp_path, f"{QUIET} --ckpt_path {address}")
    assert code == 1
    assert "addresses are not read" in said


def test_code_that_a_backbone_brings_is_not_run(tmp_path):
    from lit_fm.backbone import load_network, load_tokenizer

    load_tokenizer("tiny-clm").save_pretrained(tmp_path)
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    config = {"model_type": "evil", "architectures": ["Model"], "auto_map": code}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'pwned')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"evil|custom code"):
        load_network(str(tmp_path), AutoModelForCausalLM)
    assert not (tmp_path / "pwned").exists()


SECRETS = {
    "trainer.logger.init_args.api_key": "0123456789abcdef0123",
    "data.init_args.source": "s3://me:hunter22@bucket/data.jsonl",
    "model.init_args.backbone": "hf_abcdefghijklmnopqrstuvwxyz0123456789",
    "data.init_args.test": "https://host/a.jsonl?X-Amz-Signature=0123456789abcdef",
}


@pytest.mark.parametrize("key", list(SECRETS))
def test_a_credential_in_a_setting_is_refused_without_being_shown(key):
    config = SECRETS[key]
    for part in reversed(key.split(".")):
        config = {part: config}
    with pytest.raises(ValueError, match=f"{key} holds a password or a key") as refused:
        check_no_credentials(yaml.safe_dump(config))
    assert SECRETS[key] not in str(refused.value)


def test_a_run_with_a_credential_writes_nothing(tmp_path):
    code, said = ran(tmp_path, f"{QUIET} --data.source s3://me:hunter22@bucket/data.jsonl")
    assert code == 1
    assert "data.init_args.source holds a password or a key" in said
    assert "hunter22" not in said
    assert not (tmp_path / "runs").exists()


def test_no_shipped_config_is_taken_for_a_credential():
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert check_no_credentials(path.read_text()) is None, path
    assert check_no_credentials("{model: {new_tokens: [a], fim_tokens: b}, data: {token_budget: 9}}") is None


BAD_VERSIONS = {
    "lightning": ("2.6.2", "2.6.3", "2.6.5"),
    "pytorch-lightning": ("2.6.2", "2.6.3"),
    "transformers": ("5.2.0",),
}
"""Stolen credentials, code in checkpoints (CVE-2026-58659), code in configurations (CVE-2026-4372)."""


def test_versions_that_are_known_to_be_dangerous_are_not_installed():
    from importlib.metadata import version

    from packaging.requirements import Requirement
    from packaging.version import Version

    constraints = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    asked = [Requirement(line.strip(' ",')) for line in (ROOT / "pyproject.toml").read_text().splitlines() if ">=" in line
             and line.strip().startswith('"')]  # fmt: skip
    for name, versions in BAD_VERSIONS.items():
        assert constraints[name] not in versions
        assert Version(version(name)) > max(map(Version, versions))
        for requirement in asked:
            if requirement.name == name:
                assert not any(bad in requirement.specifier for bad in versions)


# The self-test.

CALLBACK = """
import lightning as L
import torch

class Draws(L.Callback):
    '''Adds noise from a generator of its own, whose state no checkpoint has.'''
    def __init__(self):
        self.own = torch.Generator().manual_seed(1)
    def on_before_optimizer_step(self, trainer, module, optimizer):
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter.grad += torch.randn(parameter.shape, generator=self.own)
"""


def selftest(folder, *more):
    command = [
        sys.executable,
        "-m",
        "lit_fm",
        "selftest",
        "resume",
        *QUIET.split()[1:],
        "--steps",
        "4",
        "--at",
        "2",
        *more,
    ]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_selftest_finds_a_run_equal_or_names_the_first_difference(tmp_path):
    done = selftest(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Equal to the last bit: 4 steps at a stretch, and 2, a SIGKILL, and 2" in done.stdout.replace("\n", " ")
    (tmp_path / "draws.py").write_text(CALLBACK)
    done = selftest(tmp_path, "--trainer.callbacks+", "draws.Draws")
    assert done.returncode == 1
    assert "the gradients differ first, at optimizer step 2" in done.stderr
    done = selftest(tmp_path, "--at", "4")
    assert done.returncode == 1
    assert "--at 4 must lie between 0 and --steps 4" in done.stderr
