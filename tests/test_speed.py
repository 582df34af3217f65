"""benchmarks/speed.py: all who are compared do the same work, and the bare loop does it right."""

import importlib
import subprocess
import sys
from itertools import islice

import pytest
import torch
import yaml
from conftest import ROOT
from torch.nn import functional as F

import lit_fm
from lit_fm.data.batches import Batches


@pytest.fixture
def script(monkeypatch):
    """A module of benchmarks/."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("work", ["lora", "clm", "mlm", "span"])
def test_the_bare_loop_has_the_loss_that_lit_fm_has(script, tmp_path, work):
    made, bare = script("work"), script("bare")
    size = made.Size(hidden=64, layers=1, length=256, examples=32, steps=3, batch=8, blocks=2)
    folder = made.prepare(tmp_path, work, size, None)
    settings = yaml.safe_load((folder / "fit.yaml").read_text())
    objective = getattr(lit_fm, settings["model"]["class_path"].removeprefix("lit_fm."))(str(folder / "model"))
    objective.configure_model()
    data = getattr(lit_fm, settings["data"]["class_path"].removeprefix("lit_fm."))(**settings["data"]["init_args"])
    data.attach(objective)
    data.setup("fit")
    plan = data.plan()
    plan.window = settings["trainer"].get("accumulate_grad_batches", 1)
    step = [Batches(data.items["train"], objective)[deal] for deal in islice(plan, plan.window)]
    with torch.no_grad():
        total, targets = map(sum, zip(*map(objective.token_losses, step), strict=True))
        kind = objective.network.config.model_type
        if work == "lora":
            bare.adapt(objective.network)
        given = torch.load(folder / "batches.pt")
        loss = bare.loss_of(objective.network, given[0]["rows"], kind, work == "lora")
    torch.testing.assert_close(loss / targets, total / targets, rtol=1e-4, atol=1e-4)
    assert given[0]["tokens"] == sum(batch["tokens"] for batch in step)


def test_one_product_has_the_gradients_of_three(script):
    product = script("bare").Product
    torch.manual_seed(0)
    given = [torch.randn(*shape, dtype=torch.float64) for shape in ((2, 5, 6), (7, 6), (3, 6), (7, 3))]
    x, weight, a, b = (tensor.requires_grad_(number != 1) for number, tensor in enumerate(given))
    plain = F.linear(x, weight) + F.linear(F.linear(x, a), b) * 2.0
    expected = torch.autograd.grad(plain.square().sum(), (x, a, b))
    made = product.apply(x, weight, a, b, 2.0)
    torch.testing.assert_close(made, plain)
    torch.testing.assert_close(torch.autograd.grad(made.square().sum(), (x, a, b)), expected)


def test_rows_may_be_questions_with_answers_and_nothing_else(script, tmp_path):
    made = script("work")
    (tmp_path / "a.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    assert made.rows_of(str(tmp_path / "a.jsonl"), 5) == [{"prompt": "1 + 1?", "completion": "2"}]
    (tmp_path / "b.jsonl").write_text('{"text": "1 + 1 = 2"}\n')
    with pytest.raises(ValueError, match="expected prompt and completion"):
        made.rows_of(str(tmp_path / "b.jsonl"), 5)
    with pytest.raises(ValueError, match="enough for 1 steps of 3"):
        made.prepare(tmp_path, "lora", made.Size(hidden=64, layers=1, length=256, examples=8), None)


@pytest.mark.slow
def test_one_command_prints_the_table(tmp_path):
    small = "--hidden 64 --layers 1 --length 256 --examples 48 --steps 3 --rounds 1 --threads 1 --patience 0".split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/speed.py"), "lora", *small, "--home", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| lora |") == 3
    peers = "LLaMA-Factory, packed; LitGPT, one at a time; TRL, padded"
    assert f"Left out, since there is no environment of it: {peers}." in done.stdout
    assert "lit_fm and Lightning take" in done.stdout
