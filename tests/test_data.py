"""Rows from files, splits, caching, and the order of batches."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from conftest import QUICK, ROOT, SHARED
from pyarrow import parquet

from lit_fm.data import smallworld
from lit_fm.data.corpus import Blocks
from lit_fm.data.examples import examples, kind_of
from lit_fm.data.order import BatchPlan
from lit_fm.data.rows import read
from lit_fm.data.smallworld.tasks import Task
from lit_fm.data.tokens import TokenStore, fingerprint, stored

ROWS = [{"prompt": f"say {i}", "completion": f'{i}, "quoted"\nand broken'} for i in range(30)]


def write(folder, suffix, rows=ROWS, stem="train"):
    path = folder / f"{stem}{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".jsonl":
        path.write_text("\ufeff" + "\r\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    elif suffix == ".csv":
        import csv

        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix):
    assert read(str(write(tmp_path, suffix))) == {"train": ROWS}


def test_files_of_a_folder_are_splits_by_their_names(tmp_path):
    for stem, n in (("train-00000", 5), ("Train_data", 4), ("valid", 3), ("test_sft-00000-of-00001", 2)):
        write(tmp_path, ".jsonl", ROWS[:n], stem)
    assert {split: len(rows) for split, rows in read(str(tmp_path)).items()} == {"train": 9, "validation": 3, "test": 2}


def test_a_file_of_a_folder_whose_split_is_not_known_is_named(tmp_path):
    for stem in ("train", "more"):
        write(tmp_path, ".jsonl", ROWS, stem)
    with pytest.raises(ValueError, match=r"which split is more\.jsonl"):
        read(str(tmp_path))


@pytest.mark.parametrize(
    ("row", "kind", "prompt", "answer"),
    [
        ({"prompt": "p", "completion": "c"}, "prompt/completion", "p", "c"),
        ({"instruction": "i", "input": "x", "output": "o"}, "instruction/input/output", "i\n\nx", "o"),
        ({"instruction": "i", "input": "", "output": "o"}, "instruction/input/output", "i", "o"),
        ({"instruction": "i", "output": 5}, "instruction/input/output", "i", "5"),
        ({"instruction": "i", "context": None, "response": "r"}, "instruction/context/response", "i", "r"),
        ({"question": "q", "answer": "a", "id": 3}, "question/answer (not used: id)", "q", "a"),
        ({"prompt": "p", "completion": float("nan")}, "prompt/completion", "p", ""),
    ],
)
def test_kinds_of_rows_are_recognised(row, kind, prompt, answer):
    assert examples([row]) == (kind, [{"prompt": prompt, "completion": answer}])


def test_a_null_turn_is_an_empty_one():
    row = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": None}]}
    assert examples([row])[1][0]["messages"][1]["content"] == ""


def test_a_data_set_of_hugging_face_gives_its_splits_and_names_those_it_leaves_out(tmp_path, caplog):
    """By the same call as for an id on the hub."""
    from lit_fm.data.rows import _read_hub

    for split in ("train", "dev", "extra"):
        write(tmp_path, ".jsonl", ROWS[:4], split)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {s}.jsonl\n" for s in ("train", "dev", "extra"))
        + "---\n"
    )
    assert _read_hub(str(tmp_path)) == {"train": ROWS[:4], "validation": ROWS[:4]}
    assert "['extra'] are left out" in caplog.text


def test_splits_that_are_not_given_are_cut_off_by_seed_and_share_no_row(tmp_path):
    from lit_fm import InstructionData

    path = str(write(tmp_path, ".jsonl", [{"prompt": f"p{i}", "completion": "c"} for i in range(200)]))
    sets = [InstructionData(path, seed=seed)._cut() for seed in (0, 0, 1)]
    assert sets[0] == sets[1] != sets[2]
    assert {split: len(rows) for split, rows in sets[0].items()} == {"train": 170, "validation": 10, "test": 20}
    assert len({row["prompt"] for rows in sets[0].values() for row in rows}) == 200
    few = InstructionData(path, rows=50)._cut()
    assert (len(few["train"]), few["test"]) == (50, sets[0]["test"])
    prompts = [row["prompt"] for row in few["train"]]
    assert prompts != [f"p{i}" for i in range(50)]  # drawn, not the head of a file that may be sorted


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_of_few_rows_some_are_left_to_learn_from(tmp_path, n):
    from lit_fm import InstructionData

    path = str(write(tmp_path, ".jsonl", ROWS[:n]))
    found = InstructionData(path)._cut()
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


def test_columns_name_the_fields_of_a_known_kind():
    rows = [{"text": "t", "category": "c"}]
    assert examples(rows, columns={"prompt": "text", "completion": "category"})[1] == [
        {"prompt": "t", "completion": "c"}
    ]


@pytest.mark.parametrize(
    ("rows", "kwargs", "message"),
    [
        ([{"text": "t"}], {}, "--data.columns.prompt FIELD"),
        ([{"text": "t"}], {"columns": {"prompt": "txt"}}, "did you mean 'text'"),
        ([{"prompt": "p", "completion": "c"}, {"prompt": "p"}], {}, "row 2 has no field 'completion'"),
        ([{"prompt": "p", "completion": ["c"]}], {}, "row 1: 'completion' holds a list"),
        ([{"messages": "hello"}], {}, "row 1: expected messages"),
        ([{"messages": [{"role": "user", "content": [{"text": "x"}]}]}], {}, "row 1: a message's content"),
        ([{"prompt": "p", "completion": "c"}], {"columns": {"completon": "p"}}, "did you mean 'completion'"),
        ([{"messages": [], "a": "b"}], {"columns": {"prompt": "a"}}, "no known kind has those"),
    ],
)
def test_rows_that_do_not_fit_are_one_clear_error(rows, kwargs, message):
    with pytest.raises(ValueError, match=message):
        examples(rows, **kwargs)


def test_rows_to_predict_need_no_answer():
    assert kind_of({"question": "q"}, answered=False) == "question/answer"
    assert examples([{"question": "q"}], answered=False)[1] == [{"prompt": "q", "completion": ""}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "p", "completion": "c"}\n{"prompt": \n', "line 2 is not JSON"),
        ("a.json", '[{"prompt": "p"},\n{"prompt" "q"}]', "line 2 is not JSON"),
        ("a.json", '"text"', "holds one str"),
        ("a.jsonl", "[1, 2]\n", "row 1: expected an object"),
        ("a.csv", "prompt,completion\na,b\nc\n", "line 3: not as many cells"),
        ("a.csv", "prompt,completion\na,b,c\n", "line 2: not as many cells"),
        ("a.csv", "prompt,prompt\na,b\n", "names \\['prompt'\\] twice"),
        ("a.parquet", "not parquet", "not a Parquet file"),
        ("a.txt", "hello", "convert it to one of them"),
    ],
)
def test_a_broken_file_names_the_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read(str(tmp_path / name))


def test_a_file_that_is_not_utf8_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(ValueError, match="not UTF-8"):
        read(str(tmp_path / "a.jsonl"))


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write(tmp_path, ".jsonl")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'train.jsonl'"):
        read(str(tmp_path / "trian.jsonl"))


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


def test_examples_of_like_length_share_a_batch():
    lengths = np.random.default_rng(0).integers(5, 500, 2000)
    padded = sum(len(b.numbers) * lengths[b.numbers].max() for b in BatchPlan(lengths, 16, 0, True))
    assert lengths.sum() / padded > 0.9


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
    source = write(in_tmp, ".jsonl")
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


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
def test_real_files_load_with_their_counts():
    counts = {
        "gsm8k/train.jsonl": 7473, "chat/litgpt_dolly.json": 12, "chat/kto_en_demo.json": 300, "chat/identity.json": 91,
        "banking77/train.csv": 10003,
    }  # fmt: skip
    for name, count in counts.items():
        rows = read(str(SHARED / name))["train"]
        columns = {"prompt": "text", "completion": "category"} if "banking" in name else None
        assert len(examples(rows, columns=columns)[1]) == count
