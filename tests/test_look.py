"""`data show` and `data report`: what is learnt, seen before anything is."""

import json
import re

import numpy as np
import pytest

from lit_fm import CausalLM
from lit_fm.data.overlap import duplicates, overlapping
from lit_fm.data.show import written


def test_show_prints_what_is_learnt_and_special_tokens(lit, in_tmp):
    done = lit("data", "show", "--config", "lora.yaml", "-n", "2", "--data.rows", "20")
    assert done.code == 0, done.err
    assert done.out.count("learnt)") == 2
    assert re.search(r"<s>Prescription: .*\u21b5\nPlain English:\u21b5\n\u27e6.*</s>\u27e7", done.out)
    assert not (in_tmp / "runs").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("seq2seq.yaml", r"reads: (.*\n)*writes: "),
        ("classify.yaml", r"reads: (.*\n)*says: (positive|negative)"),
        ("cloze.yaml", r"sees: .*\u27e6\[MASK\]\u27e7"),
        ("adapt-medical.yaml", r"\u27e6"),
    ],
)
def test_show_knows_every_objective(lit, in_tmp, config, expected):
    few = ["--data.documents", "50", "--data.held_out", "5"] if "medical" in config else ["--data.rows", "20"]
    done = lit("data", "show", "--config", config, "-n", "1", *few)
    assert done.code == 0, done.err
    assert re.search(expected, done.out), done.out


def test_show_gives_examples_of_a_split_that_is_asked_for(lit, in_tmp):
    done = lit("data", "show", "--config", "lora.yaml", "-n", "1", "--data.rows", "20", "--split", "test")
    assert done.code == 0, done.err
    assert "of 200 examples of test" in done.out


def test_what_is_written_is_the_text_and_the_marks_part_it():
    tokenizer = CausalLM("tiny-clm").tokenizer
    ids = np.array(tokenizer("My cat sleeps.\nSo does yours.")["input_ids"])
    learnt = np.arange(len(ids)) >= 4
    text = written(ids, learnt, tokenizer, plain=True).plain
    assert text.count("\u27e6") == text.count("\u27e7") == 1
    assert text.replace("\u27e6", "").replace("\u27e7", "").replace("\u21b5", "") == tokenizer.decode(ids)


def test_report_counts_lengths_duplicates_overlap_and_steps(lit, in_tmp):
    rows = [
        {
            "prompt": f"What is {i} plus {i}, if you please, tell me now without any delay?",
            "completion": f"It is {2 * i}.",
        }
        for i in range(200)
    ]
    rows += rows[:20] + [{"prompt": "x", "completion": ""}] * 3
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (in_tmp / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [rows[7], {"prompt": "New?", "completion": "Yes."}])
    )
    done = lit(
        "data", "report", "--config", "lora.yaml", "--data.source", "train.jsonl", "--data.test", "test.jsonl",
        "--data.validation_share", "0", "--trainer.max_steps", "10", "--out", "report",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = json.loads((in_tmp / "report/report.json").read_text())
    assert found["splits"]["train"]["dropped"] == {"empty answer": 3}
    assert found["duplicates"] == {"within train": 20 + 2, "within test": 0, "of test in train": 1}
    assert found["overlap"]["test"] == [0]
    assert found["run"]["steps"] == 10
    assert found["run"]["steps_per_epoch"] == -(-220 // 32)
    assert (in_tmp / "report/lengths.png").stat().st_size > 5000
    assert lit("data", "report", "--config", "lora.yaml", "--data.rows", "20", "--out", "report").code == 0
    assert json.loads((in_tmp / "report/report.json").read_text()) == found  # nothing is overwritten


def naive_overlap(train, evaluation, n):
    def grams(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known = [grams(text) for text in train]
    counts = {}
    for gram in {g for one in known for g in one}:
        counts[gram] = sum(gram in one for one in known)
    return [i for i, text in enumerate(evaluation) if any(0 < counts.get(g, 0) <= 10 for g in grams(text))]


def test_overlap_is_that_of_word_sequences_without_the_templates():
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(12)]
    train = ["Answer this question: " + " ".join(rng.choice(words, 9)) for _ in range(60)]
    evaluation = ["Answer this question: " + " ".join(rng.choice(words, 9)) for _ in range(30)] + [train[3].upper()]
    for n in (3, 4, 6):
        assert overlapping(train, evaluation, n) == naive_overlap(train, evaluation, n)
    assert overlapping([], evaluation, 3) == overlapping(train, [], 3) == []


def test_duplicates_are_those_of_words():
    found = duplicates({"train": ["A  b", "a b", "c"], "test": ["c", "C", "d"]})
    assert found == {"within train": 1, "within test": 1, "of test in train": 2}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["data"], "expected one of data show, data report"),
        (["data", "shwo"], "expected one of data show, data report"),
        (["data", "show", "--config", "lora.yaml", "-n", "0"], "number"),
        (["data", "show", "--config", "lora.yaml", "--data.rows", "20", "--split", "tset"], "has no tset split"),
    ],
)
def test_a_wrong_use_is_one_clear_error(lit, in_tmp, args, message):
    done = lit(*args)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
