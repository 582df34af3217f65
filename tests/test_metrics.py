"""Measures of answers: against the packages that define them and plain reckoning; odd answers; what a config chooses."""

import json
import random
import re
import string
import subprocess
import sys
from collections import Counter

import pytest
import sacrebleu
from conftest import ROOT, SHARED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import accuracy_score, f1_score

from lit_fm.data.instruct import InstructionData
from lit_fm.evaluate.calls import calls_of
from lit_fm.evaluate.metrics import LIKELIHOOD, METRICS, exact_match, measure
from lit_fm.screen import SHARES

WORDS = (
    "the cat sat on a mat , and ate 3.5 fish-cakes . L'été était déjà là ! naïve café 東京 « oui » &amp; don't".split()
)


def pairs(seed, longest, count=40):
    """Random texts with one to three right answers each; some empty, some taken over whole."""
    rng = random.Random(seed)
    right = [
        [" ".join(rng.choices(WORDS, k=rng.randint(1, longest))) for _ in range(rng.randint(1, 3))]
        for _ in range(count)
    ]
    spoilt = [[w if rng.random() < 0.7 else rng.choice(WORDS) for w in rng.choice(r).split()] for r in right]
    return ["" if rng.random() < 0.05 else " ".join(words) for words in spoilt], right


def streams(right):
    """Right answers as sacrebleu takes them: the first of each text, the second, ..."""
    return [[texts[i] if i < len(texts) else None for texts in right] for i in range(max(map(len, right)))]


@pytest.mark.parametrize("longest", [2, 5, 25])
@pytest.mark.parametrize("seed", range(5))
def test_bleu_and_chrf_are_sacrebleu_s(seed, longest):
    texts, right = pairs(seed, longest)
    found = measure(["bleu", "chrf"], texts, right)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, streams(right)).score, abs=1e-4)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, streams(right)).score, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a b c d e", ["a b x y c d e"]),  # orders without a hit are smoothed
        ("one two three four", ["one", "two four six eight ten"]),
        ("a b c", ["a b", "a b c d"]),  # as near in length: the shorter counts
        ("", ["a b"]),
        ("x", ["y"]),
        (" \n", ["a"]),
        ("a line-\nbreak here now ", ["a linebreak here now"]),
    ],
)
def test_bleu_and_chrf_of_odd_texts_are_sacrebleu_s(text, right):
    found = measure(["bleu", "chrf"], [text], [right])
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu([text], streams([right])).score, abs=1e-4)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf([text], streams([right])).score, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_rouge_is_that_of_rouge_score_with_the_best_reference(seed):
    texts, right = pairs(seed, 12)
    found = measure(["rouge"], texts, right)
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for key in ("rouge1", "rouge2", "rougeL"):
        best = [max(scorer.score(r, text)[key].fmeasure for r in many) for text, many in zip(texts, right, strict=True)]
        assert found[key] == pytest.approx(sum(best) / len(best), abs=1e-6)


def test_rouge_and_squad_s_f1_need_no_nltk():
    code = (
        "import sys; sys.modules['nltk'] = None\n"
        "from lit_fm.evaluate.metrics import METRICS, measure\n"
        "assert measure(METRICS, ['a cat'], [['a cat']])['rougeL'] == 1"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def plain(text):
    kept = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def naive_f1(text, right):
    guess, known = plain(text), plain(right)
    both = sum((Counter(guess) & Counter(known)).values())
    return 2 * both / (len(guess) + len(known)) if guess and known else float(guess == known)


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_that_of_words_with_the_best_reference(seed):
    texts, right = pairs(seed, 6)
    found = measure(["f1"], texts, right)
    f1 = [max(naive_f1(text, r) for r in many) for text, many in zip(texts, right, strict=True)]
    same = [any(plain(text) == plain(r) for r in many) for text, many in zip(texts, right, strict=True)]
    assert found["f1"] == pytest.approx(sum(f1) / len(f1), abs=1e-6)
    assert found["normalised_exact_match"] == pytest.approx(sum(same) / len(same), abs=1e-6)


def test_any_right_answer_matches_white_space_aside():
    assert exact_match(["b ", "c"], [["a", " b"], ["a", "b"]]) == 0.5


def test_classes_by_name_are_scikit_learn_s_and_other_text_is_no_class():
    right, guess = list("aaabbbbccc"), ["a", "a", "b", "b", "b", " b", "c", "c", "c", "blah"]
    found = measure(["accuracy", "macro_f1"], guess, [[r] for r in right])
    assert found["accuracy"] == pytest.approx(0.7)
    expected = f1_score(right, [g.strip() for g in guess], average="macro", labels=["a", "b", "c"])
    assert found["macro_f1"] == pytest.approx(expected)
    assert measure(["accuracy"], ["b"], [["a", "b"]]) == {"accuracy": 1.0}


@pytest.mark.parametrize("name", METRICS)
def test_a_right_answer_is_best_an_empty_one_finite_and_no_answer_nothing(name):
    one = "remind(person='Zoë', at=17)"
    best = measure([name], [one, one], [[one], ["other 3", one]])
    assert all(
        value == pytest.approx(100 if key in ("bleu", "chrf") else 1) or key == "entity_f1"
        for key, value in best.items()
    )
    assert all(0 <= value < 1 for value in measure([name], [""], [[one]]).values())
    assert measure([name], [], []) == {}


def test_shares_are_what_screen_calls_so():
    found = measure(METRICS, ["a"], [["a"]])
    assert {*found, *LIKELIHOOD} - SHARES == {"bleu", "chrf"}


REMIND = ("remind", '{"person": "Ada", "time": "17:00"}')


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "remind", "arguments": {"person": "Ada", "time": "17:00"}}',
        '{"arguments": {"time": "17:00", "person": "Ada"}, "name": "remind"}',
        '{"name": "remind", "arguments": "{\\"time\\": \\"17:00\\", \\"person\\": \\"Ada\\"}"}',
        '{"name": "remind", "parameters": {"time": "17:00", "person": "Ada"}}',
        '{"type": "function", "function": {"name": "remind", "arguments": {"time": "17:00", "person": "Ada"}}}',
        'Of course.\n<tool_call>\n{"name": "remind", "arguments": {"time": "17:00", "person": "Ada"}}\n</tool_call>',
        '<tool_call>{"name": "remind", "arguments": {"time": "17:00", "person": "Ada"}}',
        '[{"name": "remind", "arguments": {"time": "17:00", "person": "Ada"}}]',
        'remind(person="Ada", time="17:00")',
        " remind(time='17:00', person='Ada')\n",
        "[remind(time='17:00', person='Ada')]",
    ],
)
def test_a_call_is_read_in_any_of_its_forms(text):
    assert calls_of(text) == [REMIND]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("f(a={'x': [1, 2], 'y': None})", '{"name": "f", "arguments": {"a": {"y": null, "x": [1, 2]}}}', True),
        ('{"name":"f","arguments":{"a":[1,2]}}', '{"name":"f","arguments":{"a":[2,1]}}', False),
        ("f(x=5.0)", "f(x=5)", True),
        ("f(x=True)", "f(x=1)", False),
        ("f(x='5')", "f(x=5)", False),
        ("f(1, 2)", "f(2, 1)", False),
        ("f(x=-1)", '{"name": "f", "arguments": {"x": -1}}', True),
        ("f()", '{"name": "f"}', True),
        ("a.f(x=1)", "f(x=1)", False),
        ("[f(x=1), g()]", "[g(), f(x=1)]", True),
        ("f(x='é')", '{"name": "f", "arguments": {"x": "\\u00e9"}}', True),
    ],
)  # fmt: skip
def test_calls_are_the_same_irrespective_of_the_order_of_arguments(one, other, same):
    assert (measure(["tool_call"], [one], [[other]])["tool_call"] == 1) == same
    assert (calls_of(one) == calls_of(other)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yes",
        '{"name": "remind", "arguments": {"person": "Ada"',
        '{"name": "remind", "arguments": "{broken"}',
        '{"name": 3, "arguments": {}}',
        '{"name": "f", "arguments": [1]}',
        "[1, 2]",
        "f(x=y)",
        "f(**{'x': 1})",
        "f(x={1, 2})",
        "f(x=1)(2)",
        "__import__('pathlib').Path('owned').touch()",
        "f(x=__import__('pathlib').Path('owned').touch())",
        "f(x=[].__class__)",
        "(" * 5000,
        "[" * 100_000,
        "f(" * 2000 + ")" * 2000,
        "f(x=" + "-" * 50_000 + "1)",
        "f(x=" + "9" * 10_000 + ")",
        "f('\0')",
    ],
)
def test_what_is_no_call_is_not_read_as_one_and_nothing_is_run(text, in_tmp):
    assert calls_of(text) == []
    assert measure(["tool_call"], [text], [["remind()"]]) == {"tool_call": 0, "tool_name": 0}
    assert not (in_tmp / "owned").exists()


def test_the_right_tool_with_wrong_arguments_has_the_right_name():
    right = [['remind(person="Ada")', 'remind(person="Bob")']]
    assert measure(["tool_call"], ['remind(person="Cyd")'], right) == {"tool_call": 0, "tool_name": 1}
    assert measure(["tool_call"], ['remind(person="Bob")'], right) == {"tool_call": 1, "tool_name": 1}


def test_to_call_nothing_may_be_right_but_not_a_broken_call():
    texts = ["It is 5 o'clock.", "<tool_call>{broken}</tool_call>", "f()"]
    assert measure(["tool_call"], texts, [["Five."]] * 3) == {
        "tool_call": pytest.approx(1 / 3),
        "tool_name": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize(
    ("text", "right", "same"),
    [
        ("so it is 1,250.", "2 + 3 = 5\n#### 1250", True),
        ("42.0", "#### 42", True),
        ("$42.50", "42.5", True),
        ("a loss of -3", "#### -3", True),
        ("-$3", "-3", True),
        ("\N{MINUS SIGN}3", "3", False),
        ("\N{MINUS SIGN}3", "-3", True),
        ("between 2-5", "5", True),
        (".5", "0.5", True),
        ("0.05", "5", False),
        ("42 of 50", "42", False),
        ("none", "42", False),
        ("none", "none", False),
        ("", "42", False),
    ],
)
def test_the_last_number_counts(text, right, same):
    assert measure(["number"], [text], [[right]]) == {"number": float(same)}


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
def test_gsm8k_s_answers_end_in_the_number_behind_the_hashes():
    lines = (SHARED / "gsm8k" / "test.jsonl").read_text().splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert measure(["number"], answers, [[text.split("####")[1]] for text in answers]) == {"number": 1.0}


@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
def test_real_tool_calls_are_read():
    rows = json.loads((SHARED / "chat" / "glaive_toolcall_en_demo.json").read_text())
    turns = [turn for row in rows for turn in row["conversations"] if turn["from"] == "function_call"]
    assert len(turns) > 100
    assert all(len(calls_of(turn["value"])) == 1 for turn in turns)


def test_a_metric_that_does_not_exist_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match=r"data.metrics: 'roughe' is no metric: did you mean 'rouge'\?"):
        InstructionData("smallworld/names", metrics=["roughe"])
    with pytest.raises(ValueError, match="known: accuracy, bleu"):
        measure(["zzz"], ["a"], [["a"]])


# Any texts, against the packages.

WORD = st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6))
TEXT = st.lists(WORD, max_size=9).map(" ".join)
GRADED = st.lists(st.tuples(TEXT, st.lists(TEXT.filter(str.strip), min_size=1, max_size=3)), min_size=1, max_size=6)
drawn = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@drawn
@given(graded=GRADED)
def test_bleu_and_chrf_of_any_texts_are_sacrebleu_s(graded):
    texts, right = map(list, zip(*graded, strict=True))
    found = measure(["bleu", "chrf"], texts, right)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, streams(right)).score, abs=1e-4)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, streams(right)).score, abs=1e-9)


@drawn
@given(graded=GRADED)
def test_rouge_of_any_texts_is_that_of_rouge_score(graded):
    texts, right = map(list, zip(*graded, strict=True))
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
    for key, value in measure(["rouge"], texts, right).items():
        best = [max(scorer.score(r, text)[key].fmeasure for r in many) for text, many in zip(texts, right, strict=True)]
        assert value == pytest.approx(sum(best) / len(best), abs=1e-6)


@drawn
@given(pairs=st.lists(st.tuples(st.sampled_from("abcdx"), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_classes_of_any_texts_are_scikit_learn_s(pairs):
    guess, right = map(list, zip(*pairs, strict=True))
    found = measure(["accuracy", "macro_f1"], guess, [[r] for r in right])
    assert found["accuracy"] == pytest.approx(accuracy_score(right, guess))
    known = sorted(set(right))
    assert found["macro_f1"] == pytest.approx(f1_score(right, guess, average="macro", labels=known, zero_division=0))


@drawn
@given(
    sentences=st.lists(
        st.lists(
            st.tuples(*[st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])] * 2), min_size=1, max_size=9
        ),
        min_size=1,
        max_size=5,
    )
)  # fmt: skip
def test_written_tags_of_any_sentences_are_seqeval_s(sentences):
    guess, right = ([[pair[side] for pair in words] for words in sentences] for side in (0, 1))
    found = measure(["entity_f1"], [" ".join(words) for words in guess], [[" ".join(words)] for words in right])
    assert found["entity_f1"] == pytest.approx(seqeval_f1(right, guess, zero_division=0))
