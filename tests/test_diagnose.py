"""The norm and the effective rank of what LoRA learnt, against full matrices, and the verb on real runs."""

import csv
import math
from pathlib import Path

import pytest
import torch
from conftest import QUICK, llama_config
from peft.tuners.lora import LoraLayer
from PIL import Image
from test_contract import made_of, trained

from lit_fm import AdaLoRA, Full, LoRA, Peft
from lit_fm.backbone import load_network
from lit_fm.ship.diagnose import Update, draw, effective_rank, kinds, moved, updates
from lit_fm.ship.merge import merged

LEARNT = {
    "lora": lambda: LoRA(rank=4),
    "other-ranks": lambda: LoRA(rank=4, rslora=True, ranks={"layers.1.self_attn.k_proj": 2}),
    "wide": lambda: LoRA(rank=40),
    "dora": lambda: LoRA(rank=4, dora=True),
    "pissa": lambda: LoRA(rank=4, init="pissa"),
    "olora": lambda: LoRA(rank=4, init="olora"),
    "adalora": lambda: AdaLoRA(rank=2, first_rank=4, every=1, warmup=0.0),
    "qlora": lambda: LoRA(rank=4, bits=4),
    "qdora": lambda: LoRA(rank=4, bits=4, dora=True),
    "lora-8bit": lambda: LoRA(rank=4, bits=8),
    "peft": lambda: Peft({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "up_proj"]}),
}


def layers(made):
    return {n.removeprefix("base_model.model."): m for n, m in made.network.named_modules() if isinstance(m, LoraLayer)}


def plain(made):
    """The matrices of the backbone before anything was put in, as its quantised weights say."""
    network = load_network(made.backbone, made.auto_class, bits=made.adaptation.bits)
    network = network.dequantize() if made.adaptation.bits else network
    return {name: p.detach().clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize(
    ("strategy", "name"), [*((s, "llama") for s in LEARNT), ("lora", "gpt2"), ("dora", "gpt2"), ("pissa", "gpt2")]
)
def test_norms_and_ranks_are_those_of_the_merged_weight_less_the_backbone_s(make_backbone, strategy, name):
    made = made_of(make_backbone, "causal", name, LEARNT[strategy](), lr=5e-2)
    trained(made, 6)
    found, before = updates(made), plain(made)
    assert [one.layer for one in found] == list(layers(made))
    after = dict(merged(made).named_parameters())
    for one in found:
        w = before[f"{one.layer}.weight"]
        singular = torch.linalg.svdvals((after[f"{one.layer}.weight"] - w).double())
        # The difference of two float32 matrices leaves rounding in the directions that did not move.
        heard = torch.where(singular > 1e-5 * singular[0], singular, 0.0)
        assert one.update_norm == pytest.approx(float(singular.norm()), rel=1e-3)
        assert one.weight_norm == pytest.approx(float(w.norm()), rel=1e-4)
        assert one.share == pytest.approx(one.update_norm / one.weight_norm)
        assert one.effective_rank == pytest.approx(effective_rank(heard), rel=1e-2)
        assert one.update_norm > 0 or (strategy == "adalora" and one.rank == 0)
        assert one.effective_rank <= one.rank + 1e-6 or "dora" in strategy


@pytest.mark.parametrize("strategy", ["lora", "wide", "other-ranks", "adalora", "qlora"])
def test_the_singular_values_are_those_of_the_whole_update(make_backbone, strategy):
    made = made_of(make_backbone, "causal", "llama", LEARNT[strategy](), lr=5e-2)
    trained(made)
    with torch.no_grad():
        for layer in layers(made).values():
            _, core, rank = moved(layer)
            whole = torch.linalg.svdvals(layer.get_delta_weight("default").double())
            thin = torch.linalg.svdvals(core)
            assert len(thin) <= rank
            torch.testing.assert_close(thin, whole[: len(thin)], rtol=1e-4, atol=1e-6 * float(whole[0]))
            assert float(whole[len(thin) :].sum()) <= 1e-5 * float(whole[0])


def test_ranks_are_nominal_and_those_that_pruning_left(make_backbone):
    made = made_of(make_backbone, "causal", "llama", LEARNT["other-ranks"]())
    assert {one.layer: one.rank for one in updates(made) if one.rank != 4} == {"model.layers.1.self_attn.k_proj": 2}
    pruned = made_of(make_backbone, "causal", "llama", LEARNT["adalora"](), lr=5e-2)
    trained(pruned, 10)
    left = {n: int((m.lora_E["default"] != 0).sum()) for n, m in layers(pruned).items()}
    assert {one.layer: one.rank for one in updates(pruned)} == left
    assert sum(left.values()) == 2 * len(left)  # on average, at the end
    assert {one.rank for one in updates(made_of(make_backbone, "causal", "llama", LEARNT["pissa"]()))} == {8}


@pytest.mark.parametrize("k", [1, 3, 8])
def test_k_orthonormal_directions_of_equal_strength_have_effective_rank_k(make_backbone, k):
    made = made_of(make_backbone, "causal", "llama", LoRA(rank=8, alpha=16.0))
    for layer in layers(made).values():
        a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
        a.copy_(torch.linalg.qr(torch.randn(a.T.shape)).Q.T)
        b.copy_(torch.linalg.qr(torch.randn(b.shape)).Q)
        b[:, k:] = 0
    for one in updates(made):
        assert one.effective_rank == pytest.approx(k, rel=1e-5)
        assert one.update_norm == pytest.approx(2 * math.sqrt(k), rel=1e-5)  # alpha / rank = 2


def test_effective_rank_of_unequal_directions():
    halves = torch.tensor([2.0, 1.0, 1.0, 0.0])
    assert effective_rank(halves) == pytest.approx(2**1.5)  # entropy of 1/2, 1/4, 1/4: 1.5 bits
    assert effective_rank(1e-6 * halves) == pytest.approx(2**1.5)
    assert effective_rank(torch.zeros(3)) == 0


@pytest.mark.parametrize(("strategy", "name"), [("lora", "llama"), ("dora", "llama"), ("qdora", "llama"),
                                                ("dora", "gpt2"), ("adalora", "llama"), ("pissa", "llama")])  # fmt: skip
def test_what_learnt_nothing_has_norm_and_rank_zero(make_backbone, strategy, name):
    made = made_of(make_backbone, "causal", name, LEARNT[strategy]())
    for one in updates(made):
        # PiSSA's B A and B0 A0 are equal, and cancel but for rounding.
        assert one.update_norm <= (1e-6 * one.weight_norm if strategy == "pissa" else 0)
        assert one.effective_rank == 0 or strategy == "pissa"
        assert one.weight_norm > 0


def test_an_update_that_is_not_finite_is_named(make_backbone):
    made = made_of(make_backbone, "causal", "llama", LoRA(rank=4))
    layers(made)["model.layers.1.mlp.up_proj"].lora_B["default"].weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match=r"update of model\.layers\.1\.mlp\.up_proj is not finite"):
        updates(made)


@pytest.mark.parametrize(
    ("adaptation", "said"),
    [
        (Full(), "adaptation is Full: "),
        (Peft({"peft_type": "LOHA", "r": 4, "target_modules": "all-linear"}), "Peft with peft_type LOHA: "),
    ],
)
def test_what_has_no_low_rank_update_is_refused(make_backbone, adaptation, said):
    made = made_of(make_backbone, "causal", "llama", adaptation)
    with pytest.raises(ValueError, match=said + "diagnose needs a low-rank update"):
        updates(made)


def test_kinds_are_the_shortest_names_that_differ():
    bert = ["attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense"]
    names = [f"bert.encoder.layer.{n}.{layer}" for n in range(2) for layer in bert]
    expected = ["query", "attention.output.dense", "intermediate.dense", "output.dense"]
    assert list(kinds([*names, "classifier"]).values()) == [*expected, *expected, "classifier"]
    t5 = ["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q",
          "decoder.block.0.layer.1.EncDecAttention.q", "decoder.block.1.layer.1.EncDecAttention.q"]  # fmt: skip
    assert list(kinds(t5).values()) == ["encoder q", "decoder SelfAttention.q", *["decoder EncDecAttention.q"] * 2]
    assert kinds(["head.dense"]) == {"head.dense": "head.dense"}


def test_large_and_odd_networks_are_drawn(tmp_path):
    many = [
        Update(f"layers.{n}.{kind}", kind, n, rank, 3.0, 1.0, 10.0, 0.1)
        for n in range(100) for kind, rank in (("q", 4), ("up", 8))
    ]  # fmt: skip
    draw([*many, Update("head", "head", None, 4, 0.0, 0.0, 0.0, 0.0)], "many", tmp_path / "many.png")
    draw([Update("head", "head", None, 4, 2.0, 1.0, 10.0, 0.1)], "one", tmp_path / "one.png")
    assert min(path.stat().st_size for path in tmp_path.iterdir()) > 20_000


def test_the_verb_writes_a_table_and_a_picture_and_overwrites_nothing(lit, make_backbone):
    small = ("--config", "lora.yaml", *QUICK, "--score.examples", "0", "--trainer.max_steps", "2")
    small += ("--model.backbone", make_backbone("llama", llama_config()))
    assert lit("fit", *small).code == 0
    done = lit("diagnose", "runs/lora/001")
    assert done.code == 0, done.err
    assert "Written to runs/lora/001/update.csv\nWritten to runs/lora/001/update.png" in done.out
    folder = Path("runs/lora/001")
    rows = list(csv.DictReader((folder / "update.csv").open()))
    assert len(rows) == 2 * 7
    assert len({row["layer"] for row in rows}) == 14
    assert [row["block"] for row in rows] == ["0"] * 7 + ["1"] * 7
    for row in rows:
        assert float(row["share"]) == pytest.approx(float(row["update_norm"]) / float(row["weight_norm"]))
        assert 0 < float(row["effective_rank"]) <= int(row["rank"]) == 32
        assert row["kind"] in done.out
    with Image.open(folder / "update.png") as image:
        assert min(image.size) > 800
        assert len(set(image.convert("RGB").get_flattened_data())) > 100
    first = {path: path.read_bytes() for path in folder.glob("update*")}
    again = lit("diagnose", "runs/lora/001")
    assert "update-2.csv" in again.out
    assert "update-2.png" in again.out
    assert all(path.read_bytes() == content for path, content in first.items())
    assert (folder / "update-2.csv").read_bytes() == (folder / "update.csv").read_bytes()

    in_full = ("--model.adaptation", "lit_fm.Full", "--model.optimizer.lr", "1e-3")
    assert lit("fit", *small, *in_full).code == 0
    refused = lit("diagnose", "--run", "runs/lora/002")
    assert refused.code == 1
    assert refused.err.strip().endswith(
        "error: this run's adaptation is Full: diagnose needs a low-rank update, so a run of LoRA, of AdaLoRA, or of Peft "
        "with peft_type LORA."
    )
    assert not list(Path("runs/lora/002").glob("update*"))
    assert lit("diagnose", "nowhere").code == 1
