"""Several ranks: the same steps as on one, by every strategy; saved on some, resumed on others; signals; refusals."""

import json
import os
import shutil
import signal
import time
from itertools import chain

import pytest
import torch
from conftest import causal_configs, llama_config
from forks import ended, finish, launched, outcome, ranked

from lit_fm.checkpoint import newest_verified
from lit_fm.checkpoint_io import read
from lit_fm.data.order import BatchPlan

COMMON = (
    "fit --data.rows 40 --run.tracker none --score.examples 0 --trainer.limit_val_batches 0 --trainer.max_epochs 9 "
    "--trainer.accelerator cpu --model.schedule.steps 8 --run.save_every 2 --run.keep 9 "
)
SGD = "--model.optimizer torch.optim.SGD --model.optimizer.lr 0.1 --model.optimizer.fused false "
CONFIGS = {
    "full": "--config lora.yaml --model.adaptation adapt/full.yaml ",
    "lora": "--config lora.yaml ",
    "masked": "--config cloze.yaml --model.from_scratch true ",
    "spans": "--config pretrain/tiny-t5.yaml --model.from_scratch false --data.documents 60 --data.held_out 5 "
    "--data.block_size 64 --trainer.val_check_interval null ",
}


def command(kind, backbone, ranks, strategy="", steps=4, rows=8, split=1, optimizer=SGD):
    """Rows of an optimizer step are dealt to the ranks; the parts of a split group share theirs."""
    of_rank = rows * split // ranks
    devices = f"--trainer.devices {ranks} " if ranks > 1 or strategy else ""
    backbone = f"--model.backbone {backbone} " if backbone else ""
    rows = "" if kind == "spans" else "--data.rows 40 "
    start = CONFIGS[kind] + (f"--config trainer/{strategy}.yaml " if strategy else "")
    return (
        COMMON.replace("--data.rows 40 ", rows).replace("fit ", f"fit {start}")
        + f"{backbone}--data.batch_size {of_rank} --trainer.max_steps {steps} {devices}{optimizer}"
    )


def run(folder, arguments, ranks=1):
    codes, said = ranked(folder, arguments, ranks)
    assert codes == [0] * ranks, said[-3000:]
    return said


def difference(one, other):
    """The largest of losses and weights, relative to the loss, and to the largest weight."""
    assert one[0].keys() == other[0].keys()
    assert one[3].keys() == other[3].keys()
    largest = max(float(weight.abs().max()) for weight in one[0].values())
    weights = (float((other[0][name].double() - weight.double()).abs().max()) for name, weight in one[0].items())
    losses = (abs(other[3][step] - loss) / loss for step, loss in one[3].items())
    return max(max(weights) / largest, *losses)


@pytest.fixture(scope="module")
def four_heads(make_backbone):
    return make_backbone("four-heads", llama_config())


@pytest.fixture(scope="module")
def alone(tmp_path_factory, four_heads):
    """What comes of four steps on one rank, by kind; each is run when it is first asked for."""
    found = {}

    def outcome_of(kind, optimizer=SGD):
        if (kind, optimizer) not in found:
            folder = tmp_path_factory.mktemp(kind)
            run(folder, command(kind, four_heads if kind in ("full", "lora") else None, 1, optimizer=optimizer))
            found[kind, optimizer] = outcome(folder, 4)
        return found[kind, optimizer]

    return outcome_of


SLOW = pytest.mark.slow
WAYS = [
    ("full", "ddp", 2, 1), ("lora", "fsdp", 2, 1), ("full", "fsdp", 2, 1), ("full", "tensor-parallel", 2, 2),
    *(pytest.param(*way, marks=SLOW) for way in (
        ("lora", "ddp", 2, 1), ("lora", "tensor-parallel", 2, 2), ("full", "2d", 4, 2), ("lora", "2d", 4, 2),
        ("full", "ddp", 4, 1), ("full", "fsdp", 4, 1), ("lora", "ddp", 4, 1), ("lora", "fsdp", 4, 1),
        ("masked", "ddp", 2, 1), ("masked", "fsdp", 2, 1), ("spans", "ddp", 2, 1), ("spans", "fsdp", 2, 1),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "strategy", "ranks", "split"), WAYS)
def test_the_steps_of_any_number_of_ranks_are_those_of_one(tmp_path, alone, four_heads, kind, strategy, ranks, split):
    backbone = four_heads if kind in ("full", "lora") else None
    run(tmp_path, command(kind, backbone, ranks, strategy, split=split), ranks)
    assert difference(alone(kind), outcome(tmp_path, 4)) < 1e-6


@pytest.mark.slow
def test_adamw_in_double_precision_takes_the_same_steps_on_two_ranks(tmp_path, alone, four_heads):
    double = (
        "--trainer.precision 64-true "  # in single precision, its first steps magnify the rounding of tiny gradients
    )
    run(tmp_path, command("full", four_heads, 2, "ddp", optimizer=double), 2)
    assert difference(alone("full", double), outcome(tmp_path, 4)) < 1e-6


@pytest.mark.parametrize("how", ["qwen3", pytest.param("neox", marks=SLOW)])
def test_tensor_parallel_holds_for_other_architectures(tmp_path, make_backbone, how):
    backbone = make_backbone(how, causal_configs()[how])
    found = []
    for ranks, strategy in ((1, ""), (2, "tensor-parallel")):
        folder = tmp_path / str(ranks)
        run(folder, command("full", backbone, ranks, strategy, split=ranks), ranks)
        found.append(outcome(folder, 4))
    assert difference(*found) < 1e-5


def test_ranks_see_the_rows_of_one_rank_dealt_out():
    lengths = torch.randint(1, 50, (101,)).numpy()

    def steps(world, window):
        plans = [
            BatchPlan(lengths, 12 // world // window, 3, True, rank, world, window=window) for rank in range(world)
        ]
        batches = [list(plan) for plan in plans]
        micro = [sorted(n for rank in range(world) for n in batches[rank][i].numbers) for i in range(len(batches[0]))]
        return [sorted(chain(*micro[i : i + window])) for i in range(0, len(micro), window)]

    assert steps(1, 1) == steps(2, 1) == steps(4, 1) == steps(2, 3) == steps(1, 4)
    assert sorted(chain(*steps(1, 1))) == list(range(101))


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=SLOW)])
def test_a_head_is_exported_once_with_its_classes(tmp_path, strategy):
    arguments = COMMON.replace("fit ", "fit --config classify.yaml ") + "--trainer.max_steps 2 --data.batch_size 4 "
    run(tmp_path, f"{arguments}--config trainer/{strategy}.yaml --trainer.devices 2", 2)
    assert json.loads((tmp_path / "runs/classify/001/model/labels.json").read_text()) == ["negative", "positive"]


# Saved on some ranks, resumed on others.

PLACES = [
    ("ddp", 2, "", 1), ("fsdp", 2, "", 1), ("fsdp", 2, "fsdp", 1), ("", 1, "fsdp", 2),
    *(pytest.param(*way, marks=SLOW) for way in (
        ("ddp", 2, "ddp", 4), ("fsdp", 2, "fsdp", 4), ("fsdp", 4, "fsdp", 2), ("ddp", 2, "fsdp", 2), ("fsdp", 2, "2d", 4),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("saved", "on", "resumed", "then"), PLACES)
def test_a_run_saved_on_some_ranks_goes_on_on_others(tmp_path, alone, four_heads, saved, on, resumed, then):
    run(tmp_path, command("full", four_heads, on, saved, steps=2), on)
    (tmp_path / "runs/lora/001/summary.json").unlink()
    split = 2 if resumed == "2d" else 1
    said = run(tmp_path, command("full", four_heads, then, resumed, split=split) + "--run.resume required", then)
    assert "Going on with runs/lora/001 from step=2" in said.replace("\n", " ")
    assert difference(alone("full"), outcome(tmp_path, 4)) < 1e-6


def test_adamw_goes_on_to_the_last_bit_in_shards(tmp_path, four_heads):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run(straight, command("lora", four_heads, 2, "fsdp", optimizer=""), 2)
    run(stopped, command("lora", four_heads, 2, "fsdp", steps=2, optimizer=""), 2)
    (stopped / "runs/lora/001/summary.json").unlink()
    run(stopped, command("lora", four_heads, 2, "fsdp", optimizer="") + "--run.resume required", 2)
    one, other = outcome(straight, 4), outcome(stopped, 4)
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert all(
        torch.equal(value, other[1][number][name]) for number, of in one[1].items() for name, value in of.items()
    )


# Checkpoints in shards.


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory, four_heads):
    folder = tmp_path_factory.mktemp("shards")
    run(folder, command("full", four_heads, 2, "fsdp"), 2)
    return folder / "runs/lora/001"


def test_each_rank_writes_its_part_and_the_export_is_whole(in_shards, four_heads):
    names = {path.name for path in (in_shards / "checkpoints/step=4.ckpt").iterdir()}
    assert {".metadata", "__0_0.distcp", "__1_0.distcp", "state.pt", "manifest.json"} == names
    from transformers import AutoModelForCausalLM

    exported = AutoModelForCausalLM.from_pretrained(in_shards / "model").state_dict()
    held = read(in_shards / "checkpoints/step=4.ckpt")["state_dict"]
    assert all(torch.equal(exported[name.removeprefix("network.")], weight) for name, weight in held.items())


def mixed(run):
    shutil.copy(run / "checkpoints/step=2.ckpt/__1_0.distcp", run / "checkpoints/step=4.ckpt/__1_0.distcp")


def flipped(run):
    path = run / "checkpoints/step=4.ckpt/__0_0.distcp"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "mixed shards": mixed,
    "a flipped bit": flipped,
    "a missing shard": lambda run: (run / "checkpoints/step=4.ckpt/__1_0.distcp").unlink(),
    "a cut shard": lambda run: os.truncate(run / "checkpoints/step=4.ckpt/__1_0.distcp", 1000),
    "no index": lambda run: (run / "checkpoints/step=4.ckpt/.metadata").unlink(),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_shards_are_refused_and_the_checkpoint_before_is_found(in_shards, tmp_path, damage):
    shutil.copytree(in_shards, tmp_path / "run")
    DAMAGES[damage](tmp_path / "run")
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path / "run/checkpoints/step=4.ckpt")
    assert newest_verified(tmp_path / "run")[0].stem == "step=2"


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_an_evil_index_runs_nothing_even_with_a_manifest_that_fits(in_shards, tmp_path, monkeypatch):
    import pickle

    from lit_fm import durable

    monkeypatch.chdir(tmp_path)
    draft = tmp_path / "draft"
    shutil.copytree(in_shards / "checkpoints/step=4.ckpt", draft)
    (draft / "manifest.json").unlink()
    (draft / ".metadata").write_bytes(pickle.dumps(Evil()))
    durable.commit(draft, tmp_path / "step=9.ckpt", {"step": 9})
    with pytest.raises(ValueError, match="holds more than tensors' places"):
        read(tmp_path / "step=9.ckpt")
    assert not (tmp_path / "pwned").exists()


def test_an_index_that_points_out_of_its_folder_is_refused(in_shards, tmp_path):
    import pickle

    from lit_fm import durable
    from lit_fm.shards import read_index

    draft = tmp_path / "draft"
    shutil.copytree(in_shards / "checkpoints/step=4.ckpt", draft)
    (draft / "manifest.json").unlink()
    index = read_index(draft)
    for place in index.storage_data.values():
        object.__setattr__(place, "relative_path", f"../{place.relative_path}")
    (draft / ".metadata").write_bytes(pickle.dumps(index))
    durable.commit(draft, tmp_path / "step=9.ckpt", {"step": 9})
    with pytest.raises(ValueError, match="points at more than tensors in this folder"):
        read(tmp_path / "step=9.ckpt")


# What cannot work together.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--config trainer/fsdp.yaml --model.adaptation adapt/qlora.yaml", "weights of 4 bits do not part"),
        ("--config trainer/fsdp.yaml --model.adaptation adapt/adalora.yaml", "it compares whole matrices"),
        ("--config trainer/fsdp.yaml --run.save_in_background true", "ranks write their shards together"),
        ("--config trainer/fsdp-offload.yaml", "the weights are in the host's memory already"),
        ("--config trainer/fsdp.yaml --config trainer/adamw-8bit.yaml", "keeps its state in blocks that do not part"),
        ("--config trainer/tensor-parallel.yaml --model.adaptation adapt/dora.yaml", "tensor_parallel knows how Full"),
        ("--config trainer/tensor-parallel.yaml --model.backbone tiny-clm", "does not divide num_attention_heads 5"),
    ],
)
def test_what_cannot_be_parted_is_refused_with_the_reason(tmp_path, four_heads, options, message):
    arguments = f"{COMMON}--config lora.yaml --model.backbone {four_heads} {options} --trainer.devices 2"
    codes, said = ranked(tmp_path, arguments, 2)
    assert codes == [1, 1]
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_an_architecture_without_a_plan_is_not_split(tmp_path, make_backbone):
    backbone = make_backbone("gpt2", causal_configs()["gpt2"])
    codes, said = ranked(tmp_path, command("full", backbone, 2, "tensor-parallel", split=2), 2)
    assert codes == [1, 1]
    assert "transformers has no plan for GPT2LMHeadModel" in said


# Evaluation.


def test_the_validation_loss_hangs_on_no_batch_size_and_no_number_of_ranks(tmp_path, four_heads):
    start = f"validate --config lora.yaml --model.backbone {four_heads} --data.rows 60 --run.tracker none "
    start += "--trainer.accelerator cpu --model.adaptation adapt/full.yaml --data.validation_share 0.2 "
    found = []
    for number, (ranks, size) in enumerate(((1, 1), (1, 2), (1, 7), (1, 100), (2, 1), (2, 7))):
        more = f"--data.batch_size {size} --trainer.devices {ranks}" + (" --trainer.strategy ddp" if ranks > 1 else "")
        run(tmp_path / str(number), start + more, ranks)
        (report,) = (tmp_path / str(number)).glob("runs/*/*/validate.json")
        found.append(json.loads(report.read_text())["val_loss"])
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)


# Signals.


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("to", [(0,), (1,), (0, 1)])
def test_a_signal_to_any_rank_stops_all_behind_one_checkpoint(tmp_path, four_heads, strategy, to):
    arguments = (
        command("lora", four_heads, 2, strategy, steps=5000)
        .replace("--trainer.max_epochs 9", "")
        .replace("--run.save_every 2 --run.keep 9", "")
    )
    children = launched(tmp_path, arguments, 2)
    waiting = [ended(child) for child in children]
    out = tmp_path / "out-0.txt"
    while not (out.exists() and "step 1/" in out.read_text()):
        for rank in waiting:
            next(rank)
        time.sleep(0.01)
    begun = time.monotonic()
    for rank in to:
        os.kill(children[rank], signal.SIGTERM)
    assert finish(*waiting) == [143, 143], out.read_text()[-3000:]
    assert time.monotonic() - begun < 20
    (checkpoint,) = (tmp_path / "runs/lora/001/checkpoints").iterdir()
    assert newest_verified(tmp_path / "runs/lora/001") == (checkpoint, [])
    assert f"Stopped at optimizer step {checkpoint.stem.removeprefix('step=')} by SIGTERM" in out.read_text()
