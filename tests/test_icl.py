"""Learning in context: shots look as in training, give no answer away, fit, are drawn by seed, and are measured alike."""

import csv
import json
from types import SimpleNamespace

import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from test_likelihood import Data

from lit_fm import CausalLM, MaskedLM, SpanCorruption
from lit_fm.data import smallworld
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.shots import Shots, asked
from lit_fm.data.tfidf import TfIdf
from lit_fm.evaluate.icl import InContext, fitted, in_context
from lit_fm.evaluate.judge import choose_examples, cut
from lit_fm.evaluate.score import Score

TRAIN = smallworld.rows("sentiment", "train", 40)
TEST = smallworld.rows("sentiment", "test", 6)
TALK = [
    {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"said {i}"}]}
    for i in range(5)
]
SYSTEM = {"role": "system", "content": "Be brief."}
OBJECTIVES = {"tiny-clm": CausalLM, "tiny-mlm": MaskedLM, "tiny-t5": SpanCorruption}


@pytest.fixture(scope="module", params=OBJECTIVES)
def answering(request):
    made = OBJECTIVES[request.param](request.param)
    made.configure_model()
    return made


@pytest.fixture(scope="module")
def clm():
    made = CausalLM("tiny-clm")
    made.configure_model()
    return made


def asking(made, shots, test=TEST, metrics=None, limit=512):
    data = Data(test, metrics)
    data.max_length = limit
    made._trainer = SimpleNamespace(datamodule=data)
    return InContext(made, data, choose_examples(data, made, 200, 256), shots)


# How shots look.


def test_each_token_of_a_shot_is_that_of_a_training_example(clm):
    shots = list(enumerate(TRAIN[:3]))
    [found] = clm.prompt_ids([in_context(clm, shots, TEST[0])])
    encoder, expected = SegmentEncoder(clm.tokenizer), []
    for item in clm.encode(TRAIN[:3], None):
        whole = item["input_ids"].tolist()
        assert whole[-1] == clm.tokenizer.eos_token_id
        expected += [
            *(whole[:-1] if not expected else whole[len(encoder.prefix) : -1]),
            *encoder.ids("\n\n", bare=True),
        ]
    assert found == [*expected, *encoder.ids(clm.prompt(TEST[0]), bare=True)]


def test_shots_of_a_cloze_have_their_blanks_filled_and_the_question_its_own():
    made = MaskedLM("tiny-mlm")
    told = made.prompt(in_context(made, [(1, TRAIN[1]), (0, TRAIN[0])], TEST[0]))
    parts = told.split("\n\n")
    expected = ["".join(text for text, _ in made.segments(one)) for one in TRAIN[:2]]
    assert parts[:2] == expected
    assert parts[2] == made.prompt(TEST[0])
    assert told.count("<mask>") == 1
    assert all(one.endswith(f"Sentiment: {row['completion']}") for one, row in zip(expected, TRAIN, strict=False))


def test_shots_of_a_conversation_are_turns_behind_its_system_turn(clm):
    talk = [{"messages": [SYSTEM, *one["messages"]]} for one in TALK]
    made = in_context(clm, [(1, talk[1]), (0, talk[0])], talk[4])
    turns = [turn for one in (talk[0], talk[1], talk[4]) for turn in one["messages"][1:]]
    assert made["messages"] == [SYSTEM, *turns]
    assert clm.answer_references(made) == clm.answer_references(talk[4])


def test_conversations_only_share_shots_with_those_of_their_own_system_turn_and_tools():
    other = {"messages": [SYSTEM, *TALK[0]["messages"]]}
    tool = {**TALK[1], "tools": [{"type": "function", "function": {"name": "f"}}]}
    shots = Shots([*TALK[:3], other, tool], "random")
    assert [one for _, one in shots({"messages": [SYSTEM, *TALK[4]["messages"]]}, 5, 0)] == [other]
    assert {json.dumps(one) for _, one in shots(TALK[4], 5, 0)} == set(map(json.dumps, TALK[:3]))


def test_tasks_only_share_shots_with_themselves():
    rows = [{"prompt": f"{task} {i}", "completion": "x", "task": task} for task in "ab" for i in range(4)]
    assert {one["task"] for _, one in Shots(rows, "random")({**rows[0], "prompt": "new"}, 9, 0)} == {"a"}


# Which ones.


@pytest.mark.parametrize("selection", ["random", "balanced", "nearest"])
@settings(deadline=None, max_examples=25)
@given(number=st.integers(0, 12), seed=st.integers(0, 5), row=st.integers(0, 39))
def test_a_question_is_never_its_own_shot_and_fewer_shots_are_the_first_of_more(selection, number, seed, row):
    again = {**TRAIN[row], "prompt": f" {TRAIN[row]['prompt'].upper()}  ", "completion": "positive"}
    shots = Shots(TRAIN, selection)
    found = shots(again, number, seed)
    assert len(found) == number
    assert asked(again) not in [asked(one) for _, one in found]
    assert len({place for place, _ in found}) == number
    assert found == shots(again, number + 1, seed)[:number] == Shots(TRAIN, selection)(again, number, seed)
    assert shots.repeated(again)
    assert shots.most(again) == len(TRAIN) - 1


def test_a_seed_draws_shots_and_their_order_the_same_for_all_questions():
    shots = Shots(TRAIN, "random")
    draws = [[shots(question, 8, seed) for question in TEST] for seed in range(6)]
    assert all(of == draw[0] for draw in draws for of in draw)
    assert len({str(draw[0]) for draw in draws}) == 6
    nearest = Shots(TRAIN, "nearest")
    orders = [[one["prompt"] for _, one in sorted(nearest(TEST[0], 4, seed), key=lambda s: s[0])] for seed in range(6)]
    assert len({frozenset(order) for order in orders}) == 1
    assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7])
def test_balanced_shots_have_each_answer_as_often_give_or_take_one(number):
    rows = [row for row in TRAIN if row["completion"] == "positive"][:15]
    rows += [row for row in TRAIN if row["completion"] == "negative"][:7]
    for seed in range(4):
        said = [one["completion"] for _, one in Shots(rows, "balanced")(TEST[0], number, seed)]
        assert abs(said.count("positive") - said.count("negative")) == number % 2


def test_free_answers_cannot_be_balanced():
    with pytest.raises(ValueError, match="20 training examples have 20 answers, too many"):
        Shots(smallworld.rows("phrase-book", "train", 20), "balanced")


def test_nearest_is_the_cosine_of_scikit_learn_s_tf_idf():
    texts = [row["prompt"] for row in TRAIN] + ["", "one", "The the THE", "naïve 東京"]
    questions = [row["prompt"] for row in TEST] + ["the", "unseen"]
    known = TfidfVectorizer(token_pattern=r"\w+")
    matrix = known.fit_transform(texts)
    for question in questions:
        words = [w for w in question.lower().split() if any(c.isalnum() for c in w)]
        expected = (matrix @ known.transform([question]).T).toarray()[:, 0]
        found = TfIdf(texts).similarity(question)
        assert found == pytest.approx(expected, abs=1e-12), words
    shots = Shots(TRAIN, "nearest")(TEST[0], 5, 0)
    own = TfIdf([asked(row) for row in TRAIN]).similarity(asked(TEST[0]))
    assert [own[TRAIN.index(one)] for _, one in shots] == sorted(own, reverse=True)[:5]


# Room.


@pytest.mark.parametrize("room", [20, 60, 150, 400, 10_000])
def test_as_many_shots_as_fit_are_used_and_not_one_less(answering, room):
    shots = Shots(TRAIN, "random")
    made = fitted(answering, TEST, [shots(question, 8, 0) for question in TEST], room)
    for question, example, used, tokens in zip(TEST, *made, strict=True):
        wanted = shots(question, 8, 0)
        assert example == in_context(answering, wanted[:used], question)
        assert tokens == len(answering.prompt_ids([example])[0])
        assert tokens <= room or used == 0
        if used < 8:
            [longer] = answering.prompt_ids([in_context(answering, wanted[: used + 1], question)])
            assert len(longer) > room


def test_nothing_is_cut_off_a_prompt_that_has_shots(clm):
    """Neither where an answer is written nor where choices are tried: prompts of any length keep their first token."""
    made = asking(clm, Shots(TRAIN, "random"), limit=200)
    prompts = made.prompts(8, 0)
    assert 0 < min(prompts.used) < 8
    longest = max((str(c) for e in TEST for c in e["choices"]), key=len)
    for item, ids in zip(
        clm.encode([{**e, "completion": longest} for e in prompts.examples], clm.limit),
        clm.prompt_ids(prompts.examples),
        strict=True,
    ):
        assert item["input_ids"][: len(ids)].tolist() == ids
        assert len(ids) + made.chosen.longest + 8 <= clm.limit


def test_a_number_of_shots_that_no_question_has_room_for_is_marked_and_not_measured(clm):
    made = asking(clm, Shots(TRAIN, "random"), limit=60)
    row, scored = made.measure(4, 0)
    assert row["fewer_shots"] == row["questions"] == len(TEST)
    assert "exact_match" not in row
    assert scored == []


# Measured as a fit is.


@pytest.mark.parametrize("metrics", [None, ["choice_accuracy", "exact_match"]])
def test_no_shots_are_scored_as_a_fit_scores_but_for_what_is_cut(answering, metrics):
    if not answering.writes:
        metrics = None
    made, score = asking(answering, Shots([], "random"), metrics=metrics), Score()
    trainer = SimpleNamespace(datamodule=made.data, is_global_zero=True, global_rank=0, world_size=1)
    expected = score.measure(trainer, answering)
    made.until = ""
    row, scored = made.measure(0, 0)
    assert expected.items() <= row.items()
    assert scored == [{"shots": 0, "seed": 0, **one} for one in score.scored]
    assert sorted(one["row"] for one in scored) == [1, 2, 3, 4, 5, 6]
    assert all(TEST[one["row"] - 1]["completion"] == one["answer"] for one in scored)


@pytest.mark.parametrize(
    ("text", "answer"),
    [("yes\n\nReview: no", "yes"), ("\n\n yes\n\nno", "yes"), ("yes\nno", "yes\nno"), (" yes", " yes"), ("", "")],
)
def test_an_answer_ends_at_the_first_blank_line_behind_it(text, answer):
    assert cut(text, "\n\n") == answer
    assert cut(text, "") == text


def test_what_is_written_behind_a_blank_line_counts_where_a_right_answer_has_one(clm):
    one = {"prompt": "?", "completion": "a\n\nb"}
    assert asking(clm, Shots([], "random"), [one]).until == ""
    assert asking(clm, Shots([], "random"), TALK).until == ""
    assert asking(clm, Shots([], "random")).until == "\n\n"


# The verb.

ICL = ("icl", "--score.examples", "6", "--shots", "0,1,3", "--seeds", "2")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def without_times(found):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found["rows"]]


@pytest.mark.parametrize("config", ["choose.yaml", "cloze.yaml", "seq2seq.yaml", "tasks.yaml"])
def test_every_family_leaves_a_curve_as_numbers_table_and_picture(lit, in_tmp, config):
    done = lit(*ICL, "--config", config)
    assert done.code == 0, done.err
    [folder] = (in_tmp / "runs" / f"{config[:-5]}-icl").iterdir()
    found = json.loads((folder / "icl.json").read_text())
    cells = [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1)]
    assert [(row["shots"], row["seed"]) for row in found["rows"]] == cells
    assert found["ended"]
    scored = lines(folder / "scored.jsonl")
    assert [(one["shots"], one["seed"]) for one in scored] == [cell for cell in cells for _ in range(6)]
    assert len({tuple(one["row"] for one in scored[i : i + 6]) for i in range(0, 30, 6)}) == 1
    with (folder / "icl.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in found["measured"]:
        assert [float(row[name]) for row in rows] == [row[name] for row in found["rows"]]
    assert (folder / "icl.png").stat().st_size > 5000
    assert json.loads((folder / "run.json").read_text())["data"]
    assert "room for fewer" in done.out
    if "exact_match" in found["measured"] and "tasks" not in config:
        for row in found["rows"]:
            of = [one for one in scored if (one["shots"], one["seed"]) == (row["shots"], row["seed"])]
            right = [one["prediction"].strip() in {text.strip() for text in one["references"]} for one in of]
            assert row["exact_match"] == pytest.approx(sum(right) / 6)


def test_a_run_that_was_cut_off_goes_on_and_one_that_ended_is_not_touched(lit, in_tmp, monkeypatch):
    args = (*ICL, "--config", "translate.yaml")
    assert lit(*args).code == 0
    folder = in_tmp / "runs" / "translate-icl" / "001"
    whole = {name: (folder / name).read_bytes() for name in ("icl.json", "icl.csv", "scored.jsonl")}
    measure = InContext.measure

    def killed(self, number, seed):
        if number == 3:
            raise KeyboardInterrupt
        return measure(self, number, seed)

    monkeypatch.setattr(InContext, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        lit(*args)
    second = folder.with_name("002")
    kept = json.loads((second / "icl.json").read_text())["rows"]
    assert len(kept) == 3
    lines = (second / "scored.jsonl").read_text()
    assert '"prediction": "' in lines
    strange = lines.replace('"prediction": "', '"prediction": "\u2028', 1)  # which some take for the end of a line
    (second / "scored.jsonl").write_text(strange)
    (second / "scored.jsonl").open("a").write('{"shots": 3, "seed": 0}\n')  # as a kill between two files leaves it
    monkeypatch.setattr(InContext, "measure", measure)
    done = lit(*args)
    assert "Going on with" in done.out
    now = json.loads((second / "icl.json").read_text())
    assert now["rows"][:3] == kept
    assert without_times(now) == without_times(json.loads(whole["icl.json"]))
    assert (second / "scored.jsonl").read_text().replace("\u2028", "", 1).encode() == whole["scored.jsonl"]
    assert {name: (folder / name).read_bytes() for name in whole} == whole
    assert lit(*args, "--selection", "nearest", "--shots", "1", "--seeds", "1").code == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["001", "002", "003"]


def test_a_run_does_not_go_on_with_other_data(lit, in_tmp, monkeypatch):
    def write(word):
        rows = [{"prompt": f"What is {i}?", "completion": f"{word} {i % 3}"} for i in range(60)]
        (in_tmp / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def killed(self, number, seed):
        raise KeyboardInterrupt

    write("yes")
    args = ("icl", "--config", "lora.yaml", "--data.source", "own.jsonl", "--shots", "0", "--score.examples", "2")
    with monkeypatch.context() as patched:
        patched.setattr(InContext, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            lit(*args)
    write("no")
    assert "runs/lora-icl/001: the data is not what it was: put it back, or set run.resume never" in lit(*args).err
    assert "Run folder: runs/lora-icl/002" in lit(*args, "--run.resume", "never").out
    write("yes")
    assert "Going on with runs/lora-icl/001" in lit(*args).out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--config", "lora.yaml", "--shots", "1,x"], "--shots 1,x: expected numbers"),
        (["--config", "lora.yaml", "--shots", "99", "--data.rows", "20"], "there are 20 training examples to show"),
        (["--config", "lora.yaml", "--seeds", "0"], "--seeds is 0"),
        (["--config", "lora.yaml", "--selection", "best"], "selection"),
        (["--config", "lora.yaml", "--selection", "balanced"], "too many to take turns"),
        (["--config", "lora.yaml", "--score.examples", "0"], "there is no question to ask: score.examples is 0"),
        (
            ["--config", "lora.yaml", "--score.longest", "1"],
            "right answers are longer than 1 tokens: raise score.longest",
        ),
        (["--config", "lora.yaml", "--trainer.devices", "2"], "icl asks on one device"),
        (["--config", "lora.yaml", "--run.resume", "required"], "has no unfinished run of icl"),
        (["--config", "classify.yaml"], "answers by a head"),
        (["--config", "adapt-medical.yaml"], "needs prompts with answers"),
    ],
)
def test_a_wrong_use_is_one_clear_error_and_leaves_no_folder(lit, in_tmp, args, message):
    done = lit("icl", *args)
    assert done.code in (1, 2)
    assert message in done.err
    assert "Traceback" not in done.err
    assert not (in_tmp / "runs").exists()


REAL = {
    "gsm8k": ["gsm8k/train.jsonl", "--data.test", SHARED / "gsm8k/test.jsonl", "--data.metrics", '["number"]'],
    "pubmedqa": [
        "pubmedqa/ori_pqal.json", "--data.columns.instruction", "QUESTION", "--data.columns.response", "final_decision",
        "--data.choices", '["yes", "no", "maybe"]',
    ],
    "banking77": [
        "banking77/train.csv", "--data.test", SHARED / "banking77/test.csv", "--data.columns.prompt", "text",
        "--data.columns.completion", "category", "--selection", "balanced",
    ],
    "scitldr": [
        "scitldr/train.jsonl", "--data.test", SHARED / "scitldr/test.jsonl", "--data.columns.prompt", "source",
        "--data.columns.completion", "target", "--data.metrics", '["rouge"]',
    ],
    "navigate": ["bbh/navigate.json", "--data.choices", '["Yes", "No"]'],
    "boolean": ["bbh/boolean_expressions.json", "--selection", "nearest"],
    "sorting": ["bbh/word_sorting.json"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize("name", REAL)
def test_real_tasks_are_asked_with_shots(lit, in_tmp, make_backbone, name):
    from conftest import llama_config

    source, *more = REAL[name]
    done = lit(
        "icl", "--config", "lora.yaml", "--data.source", SHARED / source, *more, "--score.examples", "8",
        "--shots", "0,1,2", "--seeds", "1", "--data.rows", "400", "--data.max_length", "4096",
        "--model.backbone", make_backbone("llama-long", llama_config(max_position_embeddings=4096)),
    )  # fmt: skip
    assert done.code == 0, done.err
    [folder] = (in_tmp / "runs" / "lora-icl").iterdir()
    scored = lines(folder / "scored.jsonl")
    assert len(scored) == 24
    asked_of = {row["row"]: row["prompt"] for row in scored if row["shots"] == 0}
    for row in scored:
        assert row["prompt"].endswith(asked_of[row["row"]])
        assert row["prompt"].count(asked_of[row["row"]]) == 1
    [rows] = [json.loads((folder / "icl.json").read_text())["rows"]]
    assert [row["fewer_shots"] for row in rows] == [0, 0, 0]
    assert rows[0]["prompt_tokens"] < rows[1]["prompt_tokens"] < rows[2]["prompt_tokens"]
