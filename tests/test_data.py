"""Splits, smallworld, caching, and the order of batches."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import QUICK, ROOT, ROWS, write_rows

from lit_fm.data import smallworld
from lit_fm.data.corpus import Blocks
from lit_fm.data.order import BatchPlan
from lit_fm.data.smallworld.tasks import Task
from lit_fm.data.tokens import TokenStore, fingerprint, stored


def by_split(data):
    return {split: data.examples(split) for split in ("train", "validation", "test")}


def test_splits_that_are_not_given_are_cut_off_by_seed_and_share_no_row(tmp_path):
    from lit_fm import InstructionData

    path = str(write_rows(tmp_path, ".jsonl", [{"prompt": f"p{i}", "completion": "c"} for i in range(200)]))
    sets = [by_split(InstructionData(path, seed=seed)) for seed in (0, 0, 1)]
    assert sets[0] == sets[1] != sets[2]
    assert {split: len(rows) for split, rows in sets[0].items()} == {"train": 170, "validation": 10, "test": 20}
    assert len({row["prompt"] for rows in sets[0].values() for row in rows}) == 200
    few = by_split(InstructionData(path, rows=50))
    assert (len(few["train"]), few["test"]) == (50, sets[0]["test"])
    prompts = [row["prompt"] for row in few["train"]]
    assert prompts != [f"p{i}" for i in range(50)]  # drawn, not the head of a file that may be sorted


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_of_few_rows_some_are_left_to_learn_from(tmp_path, n):
    from lit_fm import InstructionData

    path = str(write_rows(tmp_path, ".jsonl", ROWS[:n]))
    found = by_split(InstructionData(path))
    assert sum(map(len, found.values())) == n
    assert len(found["train"]) >= max(1, n - 2)


def test_a_test_file_with_splits_gives_its_test_split_alone():
    from lit_fm import InstructionData

    data = InstructionData("smallworld/sentiment", test="smallworld/medical-shorthand", rows=20)
    assert data.examples("test") == smallworld.rows("medical-shorthand", "test")
    assert len(data.examples("train")) == 20


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"rows": -5}, {"max_length": 0}, {"max_new_tokens": 0}, {"workers": -1}]
)
def test_numbers_that_make_no_sense_are_refused(wrong):
    from lit_fm import InstructionData

    with pytest.raises(ValueError, match=next(iter(wrong))):
        InstructionData("smallworld/sentiment", **wrong)


# smallworld


@pytest.mark.parametrize("task", smallworld.TASKS)
def test_smallworld_is_a_function_of_its_seed_and_its_splits_share_no_content(task):
    sets = {split: smallworld.rows(task, split, 150, seed=1) for split in smallworld.SIZES}
    assert sets["train"] == smallworld.rows(task, "train", 150, seed=1)
    assert sets["train"] != smallworld.rows(task, "train", 150, seed=2)
    content = {s: {row["prompt"].rpartition("\n")[0] for row in rows} for s, rows in sets.items()}
    assert all(len(texts) == 150 for texts in content.values())
    assert not content["train"] & content["test"]
    assert not content["validation"] & (content["train"] | content["test"])


def test_smallworld_is_the_same_in_every_process():
    """Sets of texts come in another order in each."""
    script = (
        "from lit_fm.data import smallworld as s; from lit_fm.data.tokens import fingerprint;"
        "print(fingerprint([s.documents('general', 'train', 300), *(s.rows(t, 'train', 50) for t in sorted(s.TASKS))]))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(made) == 1


def test_answers_of_smallworld_can_be_read_off_the_prompt():
    for row in smallworld.rows("name-question", "train", 100):
        assert row["completion"] in row["prompt"]
    assert {row["completion"] for row in smallworld.rows("sentiment", "train", 100)} == {"positive", "negative"}


def test_the_shorthand_of_the_mission_comes_out():
    words = {"1 tab po qid pc & hs": "Take one tablet by mouth four times a day, after meals and at bedtime."}
    found = {}
    for split in smallworld.SIZES:
        for row in smallworld.rows("medical-shorthand", split, 6000 if split == "train" else 900):
            found[row["prompt"].split("\n")[0].removeprefix("Prescription: ")] = row["completion"]
    assert words.items() <= found.items()


def test_what_tiny_clm_was_trained_on_holds_no_medical_shorthand():
    from lit_fm.data.smallworld.prescriptions import ABBREVIATIONS

    english = {"as", "puff", "c", "d", "x"}  # words, and letters that are spelt out
    text = " ".join(smallworld.documents("general", "train", 3000))
    assert not set(re.findall(r"\w+", text)) & (ABBREVIATIONS - english)
    assert "Prescription" not in text
    assert not re.search(
        r"(tablet|capsule|drop|puff)s? (by|under|in|with) the? ?(mouth|tongue|right|left|inhaler)", text
    )


def test_asking_for_more_than_there_is_says_how_much_there_is(monkeypatch):
    coin = Task("Toss.", ("{side}\n? ||| x",), lambda rng: {"side": rng.choice("abcdefgh")}, "{side}")
    monkeypatch.setitem(smallworld.TASKS, "coin", coin)
    with pytest.raises(ValueError, match=r"has only \d different items, 20 were asked for"):
        smallworld.rows("coin", "train", 20)


# Order


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("n", [1, 7, 64, 1003])
def test_every_example_is_in_an_epoch_once_on_any_number_of_ranks(n, shuffle, world):
    lengths = np.random.default_rng(0).integers(5, 90, n)
    plans = [BatchPlan(lengths, 4, 3, shuffle, rank, world) for rank in range(world)]
    seen = Counter(i for plan in plans for deal in plan for i in deal.numbers)
    assert seen == Counter(range(n))
    assert {len(list(plan)) for plan in plans} == {len(plans[0])}


def test_a_global_batch_holds_the_same_examples_on_one_rank_and_on_two():
    lengths = np.random.default_rng(0).integers(5, 90, 100)
    one = list(BatchPlan(lengths, 8, 3, True))
    two = [list(BatchPlan(lengths, 4, 3, True, rank, 2)) for rank in range(2)]
    assert [set(a.numbers) for a in one] == [{*a.numbers, *b.numbers} for a, b in zip(*two, strict=True)]


def test_order_is_a_function_of_seed_and_epoch():
    plan = BatchPlan(np.arange(100), 4, 3, True)
    first = list(plan)
    plan.set_epoch(1)
    second = list(plan)
    plan.set_epoch(0)
    assert list(plan) == first != second
    assert list(BatchPlan(np.arange(100), 4, 4, True)) != first


def test_the_order_has_a_seed_of_its_own_and_splits_stay(llama):
    from lit_fm import CausalLM, InstructionData

    def made(**seeds):
        data = InstructionData("smallworld/sentiment:60", batch_size=4, **seeds)
        data.attach(CausalLM(llama))
        data.setup("fit")
        return data

    plain, other = made(), made(order_seed=1)
    assert plain.plan().global_batches() != other.plan().global_batches()
    assert plain.examples("test") == other.examples("test")
    assert made(order_seed=0).plan().global_batches() == plain.plan().global_batches()


def test_examples_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(5, 500, 2000)
    padded = sum(len(b.numbers) * lengths[b.numbers].max() for b in BatchPlan(lengths, 16, 0, True))
    assert lengths.sum() / padded > 0.9


def test_batches_come_in_a_random_order_and_one_that_is_not_full_comes_last():
    lengths = np.random.default_rng(0).integers(5, 90, 1003)
    for epoch in range(5):
        plan = BatchPlan(lengths, 8, 0, True)
        plan.set_epoch(epoch)
        assert [len(batch) for batch in plan.global_batches()] == [8] * 125 + [3]
        plan = BatchPlan(lengths, 1, 0, True, tokens=512)
        plan.set_epoch(epoch)
        longest = [max(lengths[i] for row in batch for i in row) for batch in plan.global_batches()]
        assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.2  # they were made in rising order
        assert abs(np.corrcoef(longest[::2], range(len(longest[::2])))[0, 1]) < 0.3


# Tokens


def test_what_is_stored_comes_back_and_is_made_once():
    made = []

    def make():
        made.append(1)
        items = [{"input_ids": np.arange(n, dtype=np.int32), "labels": np.ones(n, np.int32)} for n in (3, 1, 4)]
        return items, {"note": "x"}

    key = fingerprint("a test")
    for _ in range(2):
        store = stored(key, make)
    assert made == [1]
    assert isinstance(store, TokenStore)
    assert [len(item["input_ids"]) for item in store] == [3, 1, 4] == store.lengths().tolist()
    assert store[2]["input_ids"].tolist() == [0, 1, 2, 3]
    assert store.about["note"] == "x"


@pytest.mark.parametrize("n", [1, 2, 9, 10, 11, 100])
def test_blocks_make_every_token_a_target_once(n):
    tokens = np.arange(n, dtype=np.int32)
    store = stored(fingerprint("blocks", n), lambda: ([{"train": tokens[:5]}, {"train": tokens[5:]}], {}))
    blocks = Blocks(store, "train", 10, lambda ids: {"input_ids": ids, "labels": ids}, overlap=1)
    targets = [t for i in range(len(blocks)) for t in blocks[i]["labels"][1:].tolist()]
    assert targets == list(range(1, n))
    assert blocks.lengths().tolist() == [len(blocks[i]["input_ids"]) for i in range(len(blocks))]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".JSONL"])
def test_documents_of_a_file_are_all_in_one_split_each(tmp_path, suffix):
    from lit_fm import TextCorpus

    texts = [f"document {i}, first line\nsecond line" for i in range(30)]
    path = tmp_path / f"corpus{suffix}"
    path.write_text("\n\n".join(texts) if suffix == ".txt" else "".join(json.dumps({"text": t}) + "\n" for t in texts))
    corpus = TextCorpus(str(path), held_out=4)
    found = [*corpus.documents_by_split(str(path))]
    splits = [[text for name, text in found if name == split] for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [22, 4, 4]
    assert sorted(text for split in splits for text in split) == sorted(texts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "body"}, "set data.column"),
        ({"held_out": 15}, "lower data.held_out"),
        ({"block_size": 0}, "block_size 0"),
        ({"weights": {"other": 1.0}}, "a weight of at least 0 for each of"),
        ({"weights": {"text": 0.0}}, "one of them above 0"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_one_clear_error(tmp_path, options, message):
    from lit_fm import TextCorpus

    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' * 30)
    with pytest.raises(ValueError, match=message):
        list(TextCorpus(str(tmp_path / "a.jsonl"), **options).documents_by_split(str(tmp_path / "a.jsonl")))


def test_the_cache_is_hit_by_the_same_data_and_missed_by_any_change(lit, in_tmp, llama, monkeypatch):
    monkeypatch.setenv("LIT_FM_CACHE", str(in_tmp / "cache"))
    source = write_rows(in_tmp, ".jsonl")
    base = [
        "validate", "--config", "lora.yaml", "--data.source", source, "--model.backbone", llama, *QUICK,
    ]  # fmt: skip

    def entries(*more):
        done = lit(*base, *more)
        assert done.code == 0, done.err
        return len(list((in_tmp / "cache" / "tokens").iterdir()))

    assert entries() == entries() == 1
    assert entries("--data.max_length", "64") == 2
    assert entries("--data.template", "{{prompt}}! ||| {{completion}}") == 3
    assert entries("--model.backbone", "tiny-clm") == 3  # the same tokenizer
