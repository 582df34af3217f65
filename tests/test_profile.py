"""`profile`: phases add up to the steps, and what is wasted is found."""

import gzip
import json
import time

import pytest
import torch

from lit_fm import profile
from lit_fm.data.batches import Batches
from lit_fm.plan import phases


@pytest.fixture
def profiled(lit, in_tmp):
    """Run the verb; what it wrote, and printed."""

    def run(*args, steps=4, code=0):
        done = lit("profile", "--config", "lora.yaml", "--data.rows", "200", "--steps", steps, *args)
        assert done.code == code, done.err
        found = None if code else json.loads(next(in_tmp.glob("runs/lora-profile/*/profile.json")).read_text())
        return found, done

    return run


def test_phases_add_up_to_the_steps_and_the_trace_names_them(profiled, in_tmp):
    found, done = profiled()
    assert found["steps"] == len(found["seconds_of_each"]) == 4
    assert sum(found["seconds"].values()) == pytest.approx(sum(found["seconds_of_each"]), rel=0.01)
    assert set(found["seconds"]) == set(found["peak_bytes"]) == set(phases.PHASES)
    assert found["seconds"]["forward"] > 0 < found["seconds"]["backward"]
    assert 0 < found["utilisation"] < 1
    with gzip.open(next(in_tmp.glob("runs/lora-profile/001/trace.json.gz"))) as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {f"phase: {name}" for name in phases.PHASES} <= names
    assert "useful tokens/s" in done.out
    assert not list(in_tmp.glob("runs/lora-profile/001/adapter*"))
    assert not list(in_tmp.glob("runs/lora-profile/001/checkpoints/*"))


def test_steps_are_timed_as_a_clock_outside_sees_them(profiled, monkeypatch):
    ends, end_of = [], phases.Phases.on_train_batch_end

    def on_train_batch_end(self, *args):
        end_of(self, *args)
        ends.append(time.perf_counter())

    monkeypatch.setattr(phases.Phases, "on_train_batch_end", on_train_batch_end)
    found, _ = profiled("--trainer.accumulate_grad_batches", "2", "--data.batch_size", "8", steps=5)
    first, last = 2 * phases.WARM_UP - 1, 2 * (phases.WARM_UP + 5) - 1
    assert sum(found["seconds"].values()) == pytest.approx(ends[last] - ends[first], rel=0.02, abs=0.005)


def test_data_that_is_waited_for_is_found(profiled, monkeypatch):
    get = Batches.__getitem__

    def slowly(self, deal):
        time.sleep(0.2)
        return get(self, deal)

    monkeypatch.setattr(Batches, "__getitem__", slowly)
    found, done = profiled()
    assert 0.8 <= found["seconds"]["data"] < 1.0
    assert "Waiting for data takes" in done.out
    assert "data.workers 2" in done.out


def test_the_share_of_padding_is_the_one_of_the_batches(profiled, in_tmp, monkeypatch):
    rows = [{"prompt": "say it", "completion": "yes " * (60 if i % 4 == 0 else 1)} for i in range(64)]
    (in_tmp / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine = ["--data.source", "mine.jsonl", "--data.validation_share", "0", "--data.batch_size", "64"]
    get, seen = Batches.__getitem__, []

    def watched(self, deal):
        batch = get(self, deal)
        seen.append((batch["tokens"], batch["input_ids"].shape[0] * (batch["input_ids"].shape[1] + 1)))
        return batch

    monkeypatch.setattr(Batches, "__getitem__", watched)
    found, _ = profiled(*mine)
    empty = 1 - seen[0][0] / seen[0][1]
    text = next(w["text"] for w in found["wastes"] if "padding" in w["text"])
    assert int(text.split("%")[0]) == round(100 * empty)
    assert "data.packing padding-free" in text
    profiled(*mine, "--data.packing", "padding-free", "--run.name", "free")
    without = json.loads(next(in_tmp.glob("runs/free/*/profile.json")).read_text())
    assert not [w for w in without["wastes"] if "padding" in w["text"]]


@pytest.mark.parametrize(
    ("precision", "gain", "told"), [("32-true", 4, True), ("32-true", 0.5, False), ("bf16-mixed", 4, False)]
)
def test_bfloat16_is_advised_where_the_machine_multiplies_it_faster(profiled, monkeypatch, precision, gain, told):
    monkeypatch.setattr(profile, "speed", lambda device, dtype: 1e12 * (gain if dtype == torch.bfloat16 else 1))
    found, _ = profiled("--trainer.precision", precision)
    advised = [waste for waste in found["wastes"] if "bf16-mixed" in waste["text"]]
    assert bool(advised) == told
    if told:
        computing = sum(found["seconds"][phase] for phase in ("forward", "backward")) / sum(found["seconds"].values())
        assert advised[0]["share"] == pytest.approx(0.75 * computing)
        assert "4.0 times as fast" in advised[0]["text"]


def test_operations_are_those_of_the_products(profiled):
    """A step of full fine-tuning: six for each weight and token, besides attention."""
    found, _ = profiled("--model.adaptation", "lit_fm.Full")
    from lit_fm import CausalLM

    objective = CausalLM("tiny-clm")
    objective.configure_model()
    body = sum(p.numel() for n, p in objective.network.named_parameters() if p.dim() == 2 and "embed" not in n)
    assert found["operations_a_token"] == pytest.approx(6 * body, rel=0.25)
    assert 0 < found["share_of_logits"] < 0.5


def test_memory_holds_weights_and_more(profiled):
    found, _ = profiled("--model.adaptation", "lit_fm.Full")
    from lit_fm import CausalLM

    objective = CausalLM("tiny-clm")
    objective.configure_model()
    weights = sum(p.numel() * p.element_size() for p in objective.network.parameters())
    peak = found["peak_bytes"]
    assert peak["data"] >= 3 * weights  # with AdamW's two moments
    assert peak["backward"] > peak["optimizer"] >= 4 * weights  # and gradients
    assert peak["backward"] < 4 * weights + 500 * 2**20


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--trainer.profiler", "simple"], "leave it out"),
        (["--steps", "0"], "steps"),
        (["--data.token_budget", "2000"], "lower --steps"),
    ],
)
def test_a_wrong_use_is_one_clear_error(profiled, args, message):
    _, done = profiled(*args, code=2 if args[0] == "--steps" else 1)
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_gpu_is_waited_for_only_where_there_is_one():
    clock = phases.Clock()
    clock.start("[_TrainingEpochLoop].train_dataloader_next")
    time.sleep(0.02)
    clock.start("[Callback]Steps.on_train_batch_end")
    assert clock.phase == phases.OTHER
    clock.stop("")
    clock.stop("")
    clock.lap()
    assert clock.spent[phases.DATA] >= 0.02
    assert torch.cuda.is_initialized() or clock.spent[phases.OTHER] < 0.02
