"""Which choice is the likeliest: against one text at a time, whatever shares its batch; and how a run tells it."""

import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from conftest import llama_config, seq2seq_configs
from test_generate import learn_by_heart
from test_loss_and_gradients import objective
from test_tasks import multitask
from tokenizers.processors import TemplateProcessing

from lit_fm import LoRA, MaskedLM, SequenceClassification, SoftPrompt, SpanCorruption
from lit_fm.data import smallworld
from lit_fm.data.base import ObjectiveData
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.templates import prompt_text
from lit_fm.evaluate.likelihood import choose, right_choices
from lit_fm.evaluate.score import Score

EXAMPLES = [
    {"prompt": "The film was", "completion": "good", "choices": ["good", "bad", "good and long"]},
    {
        "prompt": "Is it?\n" * 9 + "?",
        "completion": "no",
        "choices": ["yes", "no", "yes, if it does not rain today", "peut-être"],
    },
    {"prompt": "One", "completion": "two", "choices": ["two", "two three", "three"]},
]


def seq2seq(make_backbone, name="t5"):
    L.seed_everything(3)
    made = SpanCorruption(make_backbone(name, seq2seq_configs()[name], tokenizer="tiny-t5"))
    made.configure_model()
    return made


@torch.no_grad()
def alone(made, example, choice):
    """One text through the whole network, without the objective's encoding, batches or heads."""
    text, network, tok = prompt_text(example["prompt"]), made.network, made.tokenizer
    if network.config.is_encoder_decoder:
        read, written = tok(text, return_tensors="pt"), tok(choice, add_special_tokens=False)["input_ids"]
        head = SegmentEncoder(tok).prefix
        seen = torch.tensor([[network.config.decoder_start_token_id, *head, *written]])
        logits, first = network(**read, decoder_input_ids=seen).logits[0], len(head)
    else:
        ids, before = tok(text + choice, return_tensors="pt")["input_ids"], tok(text)["input_ids"]
        assert ids[0, : len(before)].tolist() == before
        logits, written = network(input_ids=ids).logits[0, -ids.shape[1] :], ids[0, len(before) :].tolist()
        first = len(before) - 1
    return sum(logits[first + i].log_softmax(-1)[token].item() for i, token in enumerate(written))


@pytest.mark.parametrize("kind", ["llama", "lora", "prompt", "t5", "bart"])
def test_log_probabilities_are_those_of_one_text_at_a_time(make_backbone, llama, kind):
    adaptation = {"lora": LoRA(rank=4), "prompt": SoftPrompt(tokens=5)}.get(kind)
    made = seq2seq(make_backbone, kind) if kind in ("t5", "bart") else objective(llama, adaptation)
    if kind == "bart":  # its tokenizer puts special tokens at both ends of what is written too
        frame = TemplateProcessing(single="</s> $A </s>", special_tokens=[("</s>", made.tokenizer.eos_token_id)])
        made.tokenizer.backend_tokenizer.post_processor = frame
    made.network.train()
    found = choose(made, EXAMPLES)
    assert made.network.training
    made.network.eval()
    for example, choice in zip(EXAMPLES, found, strict=True):
        expected = [alone(made, example, text) for text in example["choices"]]
        assert choice.logprobs == pytest.approx(expected, abs=1e-4)
        assert choice.best == max(range(len(expected)), key=lambda i: expected[i])
        per_byte = [value / len(text.encode()) for value, text in zip(expected, example["choices"], strict=True)]
        assert choice.best_normalised == max(range(len(expected)), key=lambda i: per_byte[i])


@pytest.mark.parametrize("kind", ["llama", "t5", "tasks"])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_size_of_batches_changes_nothing(make_backbone, llama, kind, size):
    made = seq2seq(make_backbone) if kind == "t5" else multitask(llama) if kind == "tasks" else objective(llama)
    tasks = ["sentiment", "medical-shorthand", "sentiment"]
    examples = [{**example, "task": task} for example, task in zip(EXAMPLES, tasks, strict=True)]
    for one, other in zip(choose(made, examples, size), choose(made, examples), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_a_task_s_own_prompt_is_in_front(llama):
    made = multitask(llama)
    one, other = (choose(made, [{**EXAMPLES[0], "task": task}])[0].logprobs for task in made.adaptation.tasks)
    assert one != pytest.approx(other, abs=1e-3)


def test_the_same_choice_after_the_same_prompt_is_tried_once(llama, monkeypatch):
    made, tried = objective(llama), []
    monkeypatch.setattr(made, "encode", lambda examples, limit: tried.extend(examples) or ["no"] * len(examples))
    choose(made, [EXAMPLES[0], EXAMPLES[0], EXAMPLES[2]])
    assert [example["completion"] for example in tried] == [*EXAMPLES[0]["choices"], *EXAMPLES[2]["choices"]]


def test_white_space_before_an_answer_is_before_each_choice(llama):
    made = objective(llama)
    [found] = choose(made, [{**EXAMPLES[0], "completion": " good"}])
    made.network.eval()
    assert found.logprobs == pytest.approx(
        [alone(made, EXAMPLES[0], " " + c) for c in EXAMPLES[0]["choices"]], abs=1e-4
    )


def test_a_choice_that_does_not_fit_is_not_chosen_and_this_is_said(make_backbone, caplog):
    made = objective(make_backbone("short", llama_config(max_position_embeddings=48)))
    [found] = choose(made, [{"prompt": "Say", "choices": ["word " * 60, "no", ""]}])
    assert (found.best, found.best_normalised) == (1, 1)
    assert found.logprobs[0] == found.logprobs[2] == -float("inf")
    assert "2 of 3 choices leave no room" in caplog.text
    assert choose(made, [{"prompt": "Say", "choices": ["word " * 60]}])[0].best == -1


def test_any_right_answer_among_the_choices_is_right():
    assert right_choices(EXAMPLES[0]) == {0}
    assert right_choices({"choices": ["a", "b ", 3], "completion": "c", "references": ["b", "3"]}) == {1, 2}
    assert right_choices({"choices": ["a"], "completion": "b"}) == right_choices({"completion": "b"}) == set()


def test_a_rule_that_was_learnt_is_found_by_likelihood(make_backbone):
    made = objective(make_backbone("heart", llama_config(hidden_size=64)))
    words = {"red": "warm", "blue": "cold", "orange": "warm", "green": "cold"}
    rows = [
        {"prompt": f"Is {word} warm or cold?", "completion": of, "choices": ["cold", "warm"]}
        for word, of in words.items()
    ]
    learn_by_heart(made, made.collate(made.encode(rows, 64)), lr=3e-3)
    assert scored(made, rows) == {"exact_match": 1.0, "choice_accuracy": 1.0}
    swapped = [{**row, "completion": "cold" if row["completion"] == "warm" else "warm"} for row in rows]
    assert scored(made, swapped) == {"exact_match": 0.0, "choice_accuracy": 0.0}


# What a run measures.


class Data(ObjectiveData):
    """Test examples that are there already."""

    has_answers = True

    def __init__(self, examples, metrics):
        super().__init__(4, 0, 0)
        self.made, self.metrics = examples, metrics

    def examples(self, split):
        return self.made

    def metrics_of(self, task):
        return self.metrics.get(task) if isinstance(self.metrics, dict) else self.metrics

    def prepare(self, split):
        return None


def scored(made, examples, metrics=None, score=None):
    trainer = SimpleNamespace(datamodule=Data(examples, metrics), is_global_zero=True, global_rank=0, world_size=1)
    return (score or Score()).measure(trainer, made)


def test_several_tasks_are_told_apart_and_as_their_mean(llama, monkeypatch):
    made = objective(llama)
    monkeypatch.setattr(made, "answers", lambda examples, longest: [e["says"] for e in examples])
    tasks = {"sums": [("5", "5"), ("6", "7")], "names/short": [("Ada", "Ada")]}
    rows = [
        {"prompt": "?", "completion": right, "says": says, "task": task}
        for task, pairs in tasks.items()
        for says, right in pairs
    ]
    assert scored(made, rows) == {"exact_match": 0.75, "names/short/exact_match": 1, "sums/exact_match": 0.5}
    assert scored(made, rows[:2]) == {"exact_match": 0.5}
    found = scored(made, rows, {"sums": ["number"], "names/short": ["exact_match", "chrf"]})
    assert found == {
        "exact_match": 1, "chrf": 100, "number": 0.5,
        "names/short/exact_match": 1, "names/short/chrf": 100, "sums/number": 0.5,
    }  # fmt: skip


def test_any_of_several_right_answers_counts(llama, monkeypatch):
    made = objective(llama)
    monkeypatch.setattr(made, "answers", lambda examples, longest: ["two"] * len(examples))
    assert scored(made, [{"prompt": "?", "completion": "one", "references": ["one", "two"]}]) == {"exact_match": 1}


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_nothing_is_written_where_likelihood_is_all_that_is_asked_for(make_backbone, llama, monkeypatch, kind):
    made = seq2seq(make_backbone) if kind == "t5" else objective(llama)
    monkeypatch.setattr(made, "answers", None)
    score = Score()
    found = scored(made, EXAMPLES, ["choice_accuracy", "choice_accuracy_normalised"], score)
    best = choose(made, EXAMPLES)
    right = [one.best in right_choices(example) for one, example in zip(best, EXAMPLES, strict=True)]
    assert found["choice_accuracy"] == pytest.approx(sum(right) / 3)
    picked = [example["choices"][one.best] for one, example in zip(best, EXAMPLES, strict=True)]
    assert sorted(row["prediction"] for row in score.scored) == sorted(picked)


def test_an_answer_that_is_no_choice_is_left_out_of_choice_accuracy_and_said(llama, capsys):
    made = objective(llama)
    rows = [
        *EXAMPLES,
        {"prompt": "?", "completion": "maybe", "choices": ["yes", "no"]},
        {"prompt": "?", "completion": "x"},
    ]
    assert scored(made, rows, ["choice_accuracy"]) == scored(made, EXAMPLES, ["choice_accuracy"])
    assert "leaves out 2 of 5 examples" in capsys.readouterr().out
    assert set(scored(made, rows)) == {"exact_match"}
    with pytest.raises(ValueError, match=r"needs rows with `choices`.* of the task t is one: give data.choices"):
        scored(made, [{**rows[-1], "task": "t"}], ["choice_accuracy"])


def test_many_choices_are_only_tried_where_that_is_asked_for(llama):
    made, rows = objective(llama), [{**EXAMPLES[0], "choices": ["good", *map(str, range(10))]}]
    assert set(scored(made, rows)) == {"exact_match"}
    assert set(scored(made, rows, ["choice_accuracy"])) == {"choice_accuracy"}


def test_what_chooses_anyway_has_the_choice_accuracy_of_its_answers(monkeypatch):
    made = MaskedLM("tiny-mlm")
    monkeypatch.setattr(made, "answers", lambda examples, longest: ["good"] * len(examples))
    score = Score()
    assert scored(made, EXAMPLES[:2], ["choice_accuracy"], score) == {"choice_accuracy": 0.5}
    assert [row["choice_accuracy"] for row in score.scored] == [row["answer"] == "good" for row in score.scored]
    strange = {**EXAMPLES[0], "completion": "maybe"}  # as with a network that writes, no choice can be right
    assert scored(made, [*EXAMPLES[:2], strange], ["choice_accuracy"]) == {"choice_accuracy": 0.5}
    with pytest.raises(ValueError, match="needs an objective that writes: use choice_accuracy"):
        scored(made, EXAMPLES[:2], ["choice_accuracy_normalised"])


def test_a_head_has_its_own_metrics_and_others_by_name():
    made = SequenceClassification("tiny-mlm", labels=["a", "b"])
    assert made.measure(["a", "b"], [["a"], ["a", "b"]]) == pytest.approx({"accuracy": 0.5, "macro_f1": 1 / 3})
    assert made.measure(["a", "b"], [["a"], ["a", "b"]], ["accuracy", "exact_match"]) == {
        "accuracy": 0.5,
        "exact_match": 1,
    }


def test_a_run_measures_what_its_data_says(lit, in_tmp):
    rows = [
        {**row, "task": name} for name in ("sentiment", "phrase-book") for row in smallworld.rows(name, "train", 24)
    ]
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ("--run.tracker", "none", "--score.examples", 8, "--data.source", "rows.jsonl", "--trainer.max_steps", 2)
    done = lit("fit", "--config", "lora.yaml", *quick, "--data.metrics", '["chrf", "rouge"]', "--data.batch_size", 8)
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "lora" / "001"
    summary = json.loads((run / "summary.json").read_text())
    assert {"chrf", "chrf_before", "rouge1", "sentiment_chrf", "phrase-book_chrf", "phrase-book_rougeL"} <= set(summary)
    assert 1 < summary["chrf"] <= 100
    assert lit("test", "--run", run).code == 0
    assert json.loads((run / "test.json").read_text())["sentiment_chrf"] == summary["sentiment_chrf"]
    assert (
        "'chrff' is no metric: did you mean 'chrf'?"
        in lit("fit", "--config", "lora.yaml", "--data.metrics", '["chrff"]').err
    )
