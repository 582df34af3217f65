"""What a run will take, before it runs."""

import json
import sys
from functools import partial

import bitsandbytes
import pytest
import torch
import yaml
from conftest import ROOT, causal_configs, llama_config
from test_loss_and_gradients import ragged_items
from transformers import AutoModelForCausalLM, BertConfig

from lit_fm import AdaLoRA, CausalLM, Full, LoRA, MaskedLM, Sharded
from lit_fm.backbone import load_network
from lit_fm.plan import foresee
from lit_fm.plan.devices import DEVICES, find_device
from lit_fm.plan.ledger import bytes_of
from lit_fm.plan.memory import plan
from lit_fm.plan.ranks import Ranks, first_of, ranks_of
from lit_fm.plan.verb import largest_rows, least_change, overlay

sys.path.insert(0, str(ROOT / "benchmarks"))
import memory

SLOW = pytest.mark.slow
QUICK = [("CausalLM", "LoRA", False), ("MaskedLM", "Full", True), ("SpanCorruption", "Bottleneck", False)]
ALL = [(o, a, c) for o in memory.BACKBONES for a in memory.ADAPTATIONS for c in (False, True) if (o, a, c) not in QUICK]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("backbones")


@pytest.mark.parametrize(
    ("objective", "adaptation", "again"), [*QUICK, *(pytest.param(*way, marks=SLOW) for way in ALL)]
)
def test_planned_memory_is_what_a_profiler_measures(folder, objective, adaptation, again):
    planned, measured = memory.compare(folder, objective, adaptation, again)
    assert planned == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize("adaptation", [Full(), LoRA(rank=4), AdaLoRA(rank=2, first_rank=3)])
def test_a_plan_counts_what_the_network_has(llama, adaptation):
    made = CausalLM(llama, adaptation)
    found = plan(made, lambda: [made.collate(ragged_items())])
    real = CausalLM(llama, type(adaptation)(**adaptation.settings))
    real.configure_model()
    learns = [p.numel() for p in real.network.parameters() if p.requires_grad]
    assert found.parameters == sum(p.numel() for p in real.network.parameters())
    assert found.learnable == sum(learns)
    assert found.export == 4 * sum(learns)
    assert found.checkpoint == pytest.approx(3 * 4 * sum(learns), rel=0.01)


def test_operations_are_six_for_each_parameter_and_token_and_those_of_attention(make_backbone):
    config = llama_config(hidden_size=256, intermediate_size=704, num_hidden_layers=3, tie_word_embeddings=False)
    made = CausalLM(make_backbone("counted", config))
    rows, length = 2, 64
    ids = torch.arange(rows * length).reshape(rows, length).numpy().astype("int32") % 1000 + 100
    found = plan(made, lambda: [made.collate([made.block(row, False) for row in ids])])
    matrices = sum(p.numel() for n, p in made.network.named_parameters() if p.ndim == 2 and "embed" not in n)
    tokens = rows * (length - 1)
    # Two products forward; backward four, and the scores again, as flash attention does it.
    attention = 7 * config.num_hidden_layers * rows * 2 * (length - 1) ** 2 * config.hidden_size
    assert found.flops == 6 * matrices * tokens + attention


def test_four_bits_are_counted_as_they_are_stored(make_backbone):
    from test_quantise import held

    folder = make_backbone("wide-256", llama_config(hidden_size=256, intermediate_size=704))
    made = CausalLM(folder, LoRA(rank=4, bits=4))
    found = plan(made, lambda: [made.collate(ragged_items())])
    real = held(load_network(folder, AutoModelForCausalLM, bits=4))
    assert found.peak["frozen weights"] == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": partial(bitsandbytes.optim.AdamW8bit, lr=1e-3)},
        {"adaptation": LoRA(rank=16, bits=8)},
        {"adaptation": LoRA(rank=16, bits=4)},
    ],
    ids=["AdamW8bit", "8 bits", "4 bits"],
)
def test_what_is_quantised_is_planned_as_a_profiler_measures_it(folder, changes):
    made, again = (CausalLM(memory.backbone(folder, "CausalLM"), **changes) for _ in range(2))
    assert plan(made, lambda: [memory.batch_of(made)]).bytes == pytest.approx(memory.measured(again), rel=0.05)


# Ranks


def profiled(made, ranks):
    """Bytes at the peak of three real steps on the first of ranks that are not there: their messages go nowhere."""
    made.configure_model()
    with first_of(ranks):
        ranks.sharded.shard(made.network, "32-true")
        batch, optimizer = memory.batch_of(made), made.optimizer(made.groups())
        kept = bytes_of([*made.network.parameters(), *made.network.buffers()])
        with memory.profiler() as profile:
            for _ in range(3):
                total, _ = made.token_losses(batch)
                optimizer.zero_grad()
                total.backward()
                del total
                optimizer.step()
    return kept + memory.peak_of(profile)


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4])
@pytest.mark.parametrize("adaptation", [Full, partial(LoRA, rank=16)], ids=["full", "lora"])
def test_memory_in_parts_is_what_a_profiler_measures_on_one_of_four_ranks(folder, adaptation, tensor_parallel):
    made, again = (CausalLM(memory.backbone(folder, "CausalLM"), adaptation()) for _ in range(2))
    planned = plan(made, lambda: [memory.batch_of(made)], ranks=Ranks(4, Sharded(tensor_parallel)))
    assert planned.bytes == pytest.approx(profiled(again, Ranks(4, Sharded(tensor_parallel))), rel=0.05)


def test_the_copies_of_gradients_that_ddp_sends_are_counted(folder):
    made, again = (CausalLM(memory.backbone(folder, "CausalLM")) for _ in range(2))
    planned = plan(made, lambda: [memory.batch_of(made)], ranks=Ranks(2, "ddp"))
    try:
        measured = memory.measured(again, "ddp")
    finally:
        torch.distributed.destroy_process_group()
    assert planned.bytes == pytest.approx(measured, rel=0.05)
    assert planned.peak["gradients to send"] == 4 * planned.learnable


def test_dropout_in_attention_keeps_no_scores_on_a_gpu(make_backbone):
    config = BertConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=2048
    )
    folder = make_backbone("dropout", config, tokenizer="tiny-mlm")
    for again in (False, True):
        found = []
        for on_gpu in (False, True):
            made = MaskedLM(folder, activation_checkpointing=again)
            found.append(plan(made, lambda made=made: [memory.batch_of(made)], ranks=Ranks(on_gpu=on_gpu)))
        scores = 4 * 4 * 4 * 256**2  # rows, heads, and float32
        assert found[0].bytes - found[1].bytes > (1 if again else 4) * scores


def test_parts_of_a_matrix_are_computed_with_once_in_a_group(folder):
    made, again = (CausalLM(memory.backbone(folder, "CausalLM"), LoRA(rank=4)) for _ in range(2))
    whole = plan(made, lambda: [memory.batch_of(made)])
    found = plan(again, lambda: [memory.batch_of(again)], ranks=Ranks(8, Sharded(tensor_parallel=8)))
    assert (found.parameters, found.learnable, found.checkpoint) == (
        whole.parameters,
        whole.learnable,
        whole.checkpoint,
    )
    head = 4 * 2 * 255 * 4 * 512 * 8000 // 2  # the output embeddings stay whole: forward, and back to the hidden states
    assert found.flops == pytest.approx((whole.flops - head) / 8 + head, rel=0.05)


@pytest.mark.parametrize(
    ("ranks", "made", "message"),
    [
        (Ranks(6, Sharded(4)), {}, "6 ranks do not part into groups of tensor_parallel 4"),
        (Ranks(3, Sharded(3)), {}, "tensor_parallel 3 does not divide num_attention_heads"),
        (Ranks(2, Sharded()), {"adaptation": LoRA(rank=4, bits=4)}, "use strategy ddp"),
        (Ranks(2, Sharded()), {"optimizer": partial(bitsandbytes.optim.AdamW8bit, lr=1)}, "AdamW8bit keeps its state"),
    ],
)
def test_what_cannot_be_parted_so_is_refused(folder, ranks, made, message):
    made = CausalLM(memory.backbone(folder, "CausalLM"), **made)
    with pytest.raises(ValueError, match=message):
        plan(made, lambda: [memory.batch_of(made)], ranks=ranks)


def test_ranks_are_those_of_the_trainer_or_those_asked_for():
    assert ranks_of({}, None, True) == (1, None, True)
    assert ranks_of({"devices": 4, "num_nodes": 2}, None, True).world == 8
    assert ranks_of({"devices": "auto"}, 8, True).sharded.tensor_parallel == 1
    pairs = ranks_of({"strategy": Sharded(2)}, 8, False)
    assert (pairs.world, pairs.batches) == (8, 4)
    with pytest.raises(ValueError, match="add --devices 8"):
        ranks_of({"strategy": Sharded(2), "devices": "auto"}, None, True)
    with pytest.raises(ValueError, match="--devices is -1"):
        ranks_of({}, -1, True)


@pytest.mark.parametrize("name", causal_configs())
def test_every_architecture_can_be_planned(make_backbone, name):
    made = CausalLM(make_backbone(name, causal_configs()[name]), LoRA(rank=4))
    assert plan(made, lambda: [made.collate(ragged_items())]).bytes > 0


def test_the_verb_prints_json_and_reads_no_weights(lit, in_tmp):
    done = lit("plan", "--config", "lora.yaml", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out[done.out.index("{") :])
    assert found["learnable"] == 372_736
    assert found["bytes"] == sum(found["peak"].values())
    assert list(in_tmp.iterdir()) == []


def test_a_model_without_weights_is_planned_by_its_card(lit):
    options = ("--length", "128", "--data.batch_size", "1", "--model.dtype", "bfloat16", "--json")
    done = lit("plan", "--config", "lora.yaml", "--model.backbone", "bloom-176b", *options)
    assert done.code == 0, done.err
    found = json.loads(done.out[done.out.index("{") :])
    assert found["parameters"] - found["learnable"] == pytest.approx(176.2e9, rel=0.01)


def test_what_does_not_fit_gets_the_least_change_as_an_overlay_that_runs(lit, in_tmp):
    arguments = ("--config", "full.yaml", "--model.backbone", "gpt2-xl", "--length", "512", "--data.batch_size", "16")
    done = lit("plan", *arguments, "--device", "a100-80")
    assert done.code == 0, done.err
    assert "It does not fit a100-80" in done.out
    text = done.out.split("(--config FILE.yaml):\n")[1].strip()
    changed = yaml.safe_load(text)
    assert changed["data"]["init_args"]["batch_size"] * changed["trainer"]["accumulate_grad_batches"] == 16
    (in_tmp / "fits.yaml").write_text(text)
    done = lit("plan", *arguments[:6], "--config", "fits.yaml", "--device", "a100-80", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out[done.out.index("{") :])["fits"]


def grows(per_row, rest):
    """A run that takes so much for each row, and a rest; less with some changes."""
    from lit_fm.plan.memory import Plan

    def again(changes, rows):
        cost = per_row // (4 if "model.init_args.activation_checkpointing" in changes else 1)
        kept = rest // (8 if "model.init_args.dtype" in changes else 1) // changes.get("trainer.devices", 1)
        return Plan({"activations": cost * rows, "frozen weights": kept}, 0, 0, 0, 0, 0, 0)

    return again


@pytest.mark.parametrize(
    ("rows", "room", "expected", "size"),
    [
        (8, 700, "smaller micro-batches, and more of them in a step", 4),
        (8, 230, "smaller micro-batches, and more of them in a step", 1),
        (1, 150, "activations computed again in the backward pass", 1),
        (8, 150, "both of these", 2),
        (8, 60, "LoRA over a backbone in 4 bits (QLoRA)", 1),
        (1, 36, "weights, gradients and optimizer state in parts, over 16 devices (FSDP2)", 1),
        (8, 5, None, None),
    ],
)
def test_the_least_change_that_fits_is_found(rows, room, expected, size):
    """A row takes 100, or 25 where activations are computed again; the rest 100, or 12 in 4 bits."""
    found = least_change(grows(100, 100), room, rows, 1)
    assert (found and found[0]) == expected
    if found:
        assert found[1].get("data.init_args.batch_size", rows) == size
        assert found[2].bytes <= room


def test_the_largest_micro_batch_is_found_to_the_row():
    assert largest_rows(grows(10, 5), 1000) == 99
    assert largest_rows(grows(10, 5), 14) == 0
    assert largest_rows(grows(10, 5), 10**6) == 4096


def test_an_overlay_is_nested():
    assert yaml.safe_load(overlay({"a.b": 1, "a.c": True})) == {"a": {"b": 1, "c": True}}


def test_a_fit_that_cannot_fit_says_so_before_it_starts(lit, in_tmp, monkeypatch):
    """First by weights and gradients, which no batch can change; where these fit, by the run's own plan."""
    fit = ("fit", "--config", "full.yaml", "--trainer.max_steps", "1", "--score.examples", "0", "--run.tracker", "none")
    weights = 4 * 1_476_000
    for room, worth, said in ((0, foresee.WORTH_A_PLAN, weights * 2), (10**8, 0, None), (10**9, 0, False)):
        monkeypatch.setattr(foresee, "memory_of", lambda device, room=room: room)
        monkeypatch.setattr(foresee, "WORTH_A_PLAN", worth)
        done = lit(*fit, "--run.resume", "never")
        assert done.code == 0, done.err
        assert ("This will not fit: a step takes" in done.out) == (said is not False)
        if said:
            assert f"takes {said / 2**20:,.1f} MiB at its peak, and {weights / 2**20:,.1f} MiB are there" in done.out


def test_devices_are_known_and_others_named():
    assert find_device("h100").memory == 80
    assert find_device("cpu").single > 0
    with pytest.raises(ValueError, match="there is no 'h10': did you mean 'h100'"):
        find_device("h10")
    assert {"v100", "a100-40", "a100-80", "h100", "h200", "rtx3090", "rtx4090"} == set(DEVICES)


@pytest.mark.parametrize(
    ("more", "message"), [(["--length", "-3"], "length"), (["--device", "abacus"], "there is no 'abacus'")]
)
def test_nonsense_is_one_clear_error(lit, more, message):
    done = lit("plan", "--config", "lora.yaml", *more)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
