"""Running text: reading, streaming, mixing, borders, and how well it is predicted."""

import json
import math
import os
import re
import subprocess
import sys

import lightning as L
import numpy as np
import pytest
import torch
from conftest import ROOT, causal_configs, masked_configs
from torch.nn import functional as F

from lit_fm import CausalLM, MaskedLM, TextCorpus
from lit_fm.data.documents import LONGEST, documents
from lit_fm.data.shares import Shares, until_one_runs_out
from lit_fm.objectives.borders import check_borders, documents_of

# Documents


def test_a_line_without_end_is_parted_and_loses_nothing(tmp_path):
    text = "word " * (LONGEST // 2)
    (tmp_path / "a.txt").write_text(text + "\n\nsecond\n\n" + "x" * (LONGEST + 7))
    parts = list(documents(str(tmp_path / "a.txt"))["train"]())
    assert "".join(parts) == text + "second" + "x" * (LONGEST + 7)
    assert max(map(len, parts)) <= 2 * LONGEST
    assert len(parts) >= 5


def test_a_folder_s_files_are_read_in_order(tmp_path):
    (tmp_path / "b.txt").write_text("two\n\nthree")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n')
    (tmp_path / "c.csv").write_text("text\nfour\n")
    (tmp_path / "left.bin").write_bytes(b"\xff")
    assert list(documents(str(tmp_path))["train"]()) == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\n\nc", ["a\nb", "c"]),
        ("a\n \t\nb\n\n\n  c\n", ["a", "b", "  c\n"]),
        ("one\ntwo\nthree\n", ["one", "two", "three\n"]),  # no empty line: a line is a document
    ],
)
def test_empty_lines_part_documents_and_lines_where_there_are_none(tmp_path, text, expected):
    (tmp_path / "a.txt").write_text(text)
    assert list(documents(str(tmp_path / "a.txt"))["train"]()) == expected


def test_files_named_by_splits_are_those_splits_and_only_what_lacks_is_held_out(tmp_path):
    for split, count in (("train", 40), ("validation", 5)):
        rows = [json.dumps({"text": f"{split} {i}"}) + "\n" for i in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(rows))
    found = list(TextCorpus(str(tmp_path), held_out=3).documents_by_split(str(tmp_path)))
    assert [sum(split == name for split, _ in found) for name in ("train", "validation", "test")] == [37, 5, 3]
    assert all(text.startswith("validation") == (split == "validation") for split, text in found)
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(ValueError, match=r"which split is other\.txt"):
        documents(str(tmp_path))


def test_parquet_and_hugging_face_give_documents(tmp_path):
    from datasets import Dataset

    rows = Dataset.from_dict({"body": [f"document {i}" for i in range(30)]})
    rows.to_parquet(tmp_path / "a.parquet")
    assert list(documents(str(tmp_path / "a.parquet"), "body")["train"]()) == rows["body"]
    (tmp_path / "hub" / "data").mkdir(parents=True)
    rows.to_parquet(tmp_path / "hub" / "data" / "train-0.parquet")
    from lit_fm.data.documents import _of_hub

    assert list(_of_hub(str(tmp_path / "hub"), "body")["train"]()) == rows["body"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "caf\xe9".encode("latin-1"), "is not UTF-8 text"),
        ("a.jsonl", b'{"text": 5}\n', "row 1: 'text' is no text"),
        ("a.jsonl", b'{"body": "x"}\n', "set data.column"),
        ("a.jsonl", b'{"text": "x"\n', "line 1 is not JSON"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\\ud83d"}\n', "line 2 holds half a character"),
        ("a.html", b"<p>x</p>", r"call it \.txt if it is plain text"),
    ],
)
def test_text_that_cannot_be_read_is_one_clear_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(documents(str(tmp_path / name))["train"]())


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path):
    (tmp_path / "corpus.txt").write_text("x")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'corpus\.txt'"):
        documents(str(tmp_path / "corpsu.txt"))


# Streaming

STREAM = """
import os, resource, sys, types
sys.path.insert(0, {root!r})
from lit_fm import CausalLM, TextCorpus
objective = CausalLM("tiny-clm")
data = TextCorpus({source!r}, block_size=511, held_out=10, batch_size=64)
strategy = types.SimpleNamespace(local_rank=0, barrier=lambda: None)
data.trainer = types.SimpleNamespace(lightning_module=objective, strategy=strategy, global_rank=0, world_size=1)
data.setup("fit")
store, targets, sums, first = data._stores["text"], 0, 0, int(data._stores["text"].piece("train", 0, 1)[0])
for batch in data.train_dataloader():
    targets += len(batch["targets"])
    sums += int(batch["targets"].sum())
size, total = store.size("train"), 0
for start in range(0, size, 1 << 20):
    total += int(store.piece("train", start, min(start + (1 << 20), size)).sum(dtype="int64"))
report = data.report["train"]
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(targets, size, sums, total - first, report["rows"], report["bytes"], memory)
"""


def streamed(source, tmp_path, timeout):
    script = STREAM.format(root=str(ROOT), source=str(source))
    env = {**os.environ, "LIT_FM_CACHE": str(tmp_path / "cache"), "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(number) for number in done.stdout.split()]


def written(path, size):
    """A file of about so many bytes, of documents that differ, and how many there are."""
    from lit_fm.data import smallworld

    texts = [text.replace("\n\n", "\n") for text in smallworld.documents("general", "train", 20_000)]
    block, count, bytes_ = "\n\n".join(texts), 0, 0
    with path.open("w") as file:
        while bytes_ < size:
            piece = f"Part {count}.\n\n{block}\n\n"
            bytes_ += file.write(piece)
            count += len(texts) + 1
    return count


def test_every_token_of_a_file_is_a_target_once_an_epoch(tmp_path):
    count = written(tmp_path / "a.txt", 5_000_000)
    targets, size, sums, total, rows, _, _ = streamed(tmp_path / "a.txt", tmp_path, 250)
    assert (targets, sums) == (size - 1, total)
    assert rows + 20 == count  # what stands behind the last empty line


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_file_of_two_gigabytes_streams_in_less_memory_than_it_has_bytes(tmp_path):
    written(tmp_path / "a.txt", 2_000_000_000)
    targets, size, sums, total, _, bytes_, memory = streamed(tmp_path / "a.txt", tmp_path, 1700)
    print(f"{bytes_:,} bytes, {size:,} tokens, {memory / 2**20:.2f} GiB at most")
    assert (targets, sums) == (size - 1, total)
    assert bytes_ > 1.9e9
    assert memory * 1024 < 1.5e9


# Mixtures


def test_a_mixture_keeps_its_shares_and_sees_all_of_a_part_before_any_of_it_again():
    counts = [100, 1000, 37]
    mixture = Shares(counts, until_one_runs_out(counts, [0.5, 0.4, 0.1]), seed=3)
    assert mixture.taken == [100, 80, 20]
    epochs = [mixture.draw(epoch) for epoch in range(25)]
    for drawn in epochs:
        assert [((drawn >= a) & (drawn < b)).sum() for a, b in ((0, 100), (100, 1100), (1100, 1137))] == [100, 80, 20]
    seen = np.concatenate(epochs)
    for low, high in ((0, 100), (100, 1100), (1100, 1137)):
        counts = np.bincount(seen[(seen >= low) & (seen < high)] - low, minlength=high - low)
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(epochs[0], epochs[1])
    assert np.array_equal(mixture.draw(7), epochs[7])


def test_without_weights_an_epoch_is_all_there_is():
    mixture = Shares([5, 8], None, 0)
    assert sorted(mixture.draw(3)) == list(range(13)) == sorted(mixture.draw(4))


def test_a_part_of_no_weight_is_only_measured():
    mixture = Shares([50, 20], until_one_runs_out([50, 20], [1, 0]), 0)
    assert sorted(mixture.draw(0)) == list(range(50))


ADAPT = ("--data.documents", 400, "--data.held_out", 40, "--run.tracker", "none", "--trainer.max_steps", 4)


def test_each_part_s_perplexity_and_bits_per_byte_are_measured_before_during_and_after(lit, in_tmp):
    done = lit("fit", "--config", "adapt-medical.yaml", *ADAPT, "--trainer.val_check_interval", 2)
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "adapt-medical" / "001"
    summary = json.loads((run / "summary.json").read_text())
    for part in ("medical", "general"):
        for measure in ("loss", "perplexity", "bits_per_byte"):
            assert {f"{part}_{measure}", f"{part}_{measure}_before"} <= set(summary)
        assert summary[f"{part}_perplexity"] == pytest.approx(math.exp(summary[f"{part}_loss"]))
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum("val/medical/bits_per_byte" in step for step in steps) == 2
    assert "medical perplexity before" in done.out
    assert re.search(r"An epoch takes of medical: \d+ of \d+ blocks, 5[01]\.\d% of all\.", done.out)


def test_bits_per_byte_are_the_code_length_of_the_held_out_text(lit, in_tmp):
    """A reference by hand: all tokens of the test documents but the first, in one row after the other."""
    assert lit("fit", "--config", "pretrain/tiny-clm.yaml", *ADAPT, "--data.block_size", 64).code == 0
    run = in_tmp / "runs" / "tiny-clm" / "001"
    found = json.loads((run / "summary.json").read_text())
    made = CausalLM(str(run / "model"))
    made.configure_model()
    made.network.eval()
    corpus = TextCorpus("smallworld/general", documents=400, held_out=40)
    texts = [text for split, text in corpus.documents_by_split("smallworld/general") if split == "test"]
    ids = torch.tensor(made.running(texts)).long()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(ids) - 1, 64):
            row = ids[start : start + 65]
            total += F.cross_entropy(made.network(row[None, :-1]).logits[0], row[1:], reduction="sum").item()
    assert found["bits_per_byte"] == pytest.approx(total / math.log(2) / len("".join(texts).encode()), rel=1e-5)
    assert found["loss"] == pytest.approx(total / (len(ids) - 1), rel=1e-5)


@pytest.mark.parametrize(
    "weights", [{"medical": 1.0}, {"medical": -1.0, "general": 1.0}, {"medical": 0.0, "general": 0.0}]
)
def test_wrong_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"expected a weight of at least 0 for each of \['general', 'medical'\]"):
        TextCorpus({"medical": "smallworld/medical", "general": "smallworld/general"}, weights)


# Borders


def made_for(make_backbone, name):
    L.seed_everything(0)
    if name in causal_configs():
        made = CausalLM(make_backbone(name, causal_configs()[name]))
    else:
        made = MaskedLM(make_backbone(name, masked_configs()[name], tokenizer="tiny-mlm"))
    made.configure_model()
    made.network.eval()
    return made


@pytest.mark.parametrize("name", [*causal_configs(), *masked_configs()])
def test_documents_of_a_block_do_not_see_each_other_or_the_backbone_is_refused(make_backbone, name):
    made = made_for(make_backbone, name)
    if name == "bloom":
        with pytest.raises(ValueError, match="cannot keep documents of a block apart"):
            check_borders(made.network, name, made.reads_all, 30)
        return
    check_borders(made.network, name, made.reads_all, 30)
    ids = made.running(["Where is the dog?", "It ran away, nobody knows where.", "No."])
    item = made.block(ids, borders=True)
    batch = made.collate([item], [(0, 0, 0)])
    shown, of = batch["input_ids"][0], torch.from_numpy(item["documents"])[: batch["input_ids"].shape[1]]
    with torch.no_grad():
        packed = made.logits(batch)
        alone = torch.cat([made.network(input_ids=shown[of == d][None]).logits[0] for d in of.unique()])
    torch.testing.assert_close(packed, alone[batch["rows"]], rtol=1e-4, atol=1e-5)


def test_a_window_of_attention_that_the_mask_would_open_is_seen(make_backbone):
    """ModernBERT's local layers see 64 tokens to each side: longer documents must be tried, or it would not show."""
    made = made_for(make_backbone, "modernbert")
    check_borders(made.network, "modernbert", False, 60)
    with pytest.raises(ValueError, match="cannot keep documents of a block apart"):
        check_borders(made.network, "modernbert", False, 400)


def test_the_first_token_of_a_document_is_no_target_of_the_one_before(make_backbone):
    made = made_for(make_backbone, "llama")
    ids = made.running(["One two.", "Three four."])
    of = documents_of(ids, made.document_tail())
    batch = made.collate([made.block(ids, borders=True)])
    firsts = np.flatnonzero(np.diff(of)) + 1
    assert len(firsts) == 1
    assert len(batch["targets"]) == len(ids) - 2
    assert set(range(len(ids) - 1)) - set(batch["rows"].tolist()) == {firsts[0] - 1}


def test_borders_are_refused_where_documents_would_mix(lit, make_backbone):
    bloom = make_backbone("bloom", causal_configs()["bloom"])
    done = lit("fit", "--config", "adapt-medical.yaml", *ADAPT, "--data.borders", "true", "--model.backbone", bloom)
    assert done.code == 1
    assert "cannot keep documents of a block apart exactly" in done.err
    done = lit("fit", "--config", "pretrain/tiny-t5.yaml", *ADAPT, "--data.borders", "true")
    assert "an encoder-decoder cannot keep documents of a block apart" in done.err


def test_a_run_with_borders_learns(lit, in_tmp):
    done = lit("fit", "--config", "adapt-medical.yaml", *ADAPT, "--data.borders", "true")
    assert done.code == 0, done.err


# Fill in the middle


def test_documents_with_their_middle_last_hold_the_same_tokens(tmp_path):
    from lit_fm.data.tokenizer import train_tokenizer

    marks = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    train_tokenizer("smallworld/general", str(tmp_path), vocab_size=600, documents=500, extra_tokens=marks)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 600}')
    made = CausalLM(str(tmp_path), fim_rate=0.5)
    ids = made.running([f"The number {i} is between {i - 1} and {i + 1}." for i in range(300)])
    item = made.block(ids.astype(np.int64), borders=False)
    whole = made._filled_in(item, (0, 0, 0))["input_ids"]
    assert len(whole) == len(ids)  # the marks take room
    texts = made.tokenizer.decode(whole).split("</s>")[:-1]
    moved = [text for text in texts if "<fim_middle>" in text]
    assert 100 < len(moved) < 180
    for i, text in enumerate(texts):
        assert text.startswith("<s>")
        body = text.removeprefix("<s>")
        if text in moved:
            prefix, rest = body.removeprefix("<fim_prefix>").split("<fim_suffix>")
            suffix, middle = rest.split("<fim_middle>")
            body = prefix + middle + suffix
        assert body == f"The number {i} is between {i - 1} and {i + 1}."
    assert len(made.collate([item])["targets"]) == len(ids) - 1  # in evaluation, the text as it is


def test_marks_keep_borders(tmp_path):
    from lit_fm.data.tokenizer import train_tokenizer

    marks = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]
    train_tokenizer("smallworld/general", str(tmp_path), vocab_size=600, documents=500, extra_tokens=marks)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "vocab_size": 600}')
    made = CausalLM(str(tmp_path), fim_rate=1.0)
    ids = made.running([f"The number {i} is between {i - 1} and {i + 1}." for i in range(30)]).astype(np.int64)
    batch = made.collate([made.block(ids, borders=True)], [(0, 0, 0)])
    assert {"attention_mask", "position_ids"} <= set(batch)
    assert batch["input_ids"].shape[1] == len(ids) - 1
    assert made.fim_marks[0] in batch["input_ids"]


def test_borders_without_a_token_that_ends_a_document_are_refused(lit, in_tmp, llama):
    import shutil

    shutil.copytree(llama, in_tmp / "endless")
    path = in_tmp / "endless" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": None}))
    endless = ("--model.backbone", in_tmp / "endless", "--data.borders", "true")
    assert "no token that ends a document" in lit("fit", "--config", "adapt-medical.yaml", *ADAPT, *endless).err


def test_bits_per_byte_with_borders_count_the_targets_that_there_are():
    from types import SimpleNamespace

    corpus = TextCorpus("smallworld/general", documents=400, held_out=40, block_size=64, borders=True)
    objective = CausalLM("tiny-clm")
    corpus.trainer = SimpleNamespace(lightning_module=objective)
    blocks, report = corpus.prepare("test")
    batches = [objective.collate([blocks[i]]) for i in range(len(blocks))]
    targets = sum(len(batch["targets"]) for batch in batches)
    assert report["test"]["targets_per_byte"] * report["test"]["bytes"] == pytest.approx(targets)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_share_of_documents_is_between_none_and_all(rate):
    with pytest.raises(ValueError, match=r"expected a share of documents in 0\.\.1"):
        CausalLM("tiny-clm", fim_rate=rate)


def test_a_tokenizer_without_the_marks_is_refused():
    made = CausalLM("tiny-clm", fim_rate=0.5)
    with pytest.raises(ValueError, match="no token '<fim_prefix>'"):
        _ = made.fim_marks


# The same file for all


def test_one_file_trains_every_objective(lit, in_tmp):
    kinds = ["even", "odd"]
    rows = [{"prompt": f"Number {i} is", "completion": kinds[i % 2], "choices": kinds} for i in range(80)]
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    few = ("--data.source", "rows.jsonl", "--data.rows", 40, "--trainer.max_steps", 2, "--run.tracker", "none")
    for config in ("lora.yaml", "cloze.yaml", "seq2seq.yaml", "classify.yaml"):
        done = lit("fit", "--config", config, *few, "--score.examples", 4)
        assert done.code == 0, (config, done.err)
        assert (
            "predictions written" in lit("predict", "--run", in_tmp / "runs" / config.removesuffix(".yaml") / "001").out
        )
