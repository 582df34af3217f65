"""`evaluate`: the harness's numbers are ours, and those of text are what `test` tells."""

import json
import sys

import pytest
import torch
from test_likelihood import objective, seq2seq

from lit_fm import Prefix, SoftPrompt
from lit_fm.data import smallworld
from lit_fm.data.templates import prompt_text
from lit_fm.evaluate.likelihood import choose

TASK = """task: mood
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
target_delimiter: "\\n"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1}}
"""

WHOLE = """task: whole
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{prompt}}}}"
metric_list: [{{metric: word_perplexity}}]
metadata: {{version: 1}}
"""


@pytest.fixture(scope="module")
def harness():
    return pytest.importorskip("lm_eval")


@pytest.fixture
def mood(in_tmp, monkeypatch):
    """A task of the harness in a folder: reviews of smallworld, the answer on a line of its own."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(in_tmp / "hf"))
    rows = smallworld.rows("sentiment", "test", 6)
    rows = [{**row, "choices": [*row["choices"], "neither of them"]} for row in rows]
    made = [{**row, "label": row["choices"].index(row["completion"])} for row in rows]
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (in_tmp / "tasks").mkdir()
    (in_tmp / "tasks" / "mood.yaml").write_text(TASK.format(rows=in_tmp / "rows.jsonl"))
    return rows


def of_line_break(made, prompt):
    """The log-probability of the line break behind a prompt, which the harness counts as the answer's."""
    tok = made.tokenizer
    before, after = tok(prompt)["input_ids"], tok(prompt_text(prompt))["input_ids"]
    assert after[:-1] == before
    with torch.no_grad():
        logits = made.network(input_ids=torch.tensor([before])).logits[0, -1]
    return logits.log_softmax(-1)[after[-1]].item()


@pytest.mark.parametrize("kind", ["tiny-clm", "prompt", "prefix"])
def test_likelihoods_of_choices_are_those_of_the_harness(harness, mood, kind):
    from lit_fm.evaluate.harness import ask

    adaptations = {"prompt": SoftPrompt(tokens=5), "prefix": Prefix(tokens=5)}
    made = objective("tiny-clm", adaptations.get(kind))
    made.network.eval()
    found = ask(made.network, made.tokenizer, ["mood"], "tasks", batch_size=4)
    samples = sorted(found["samples"]["mood"], key=lambda one: one["doc_id"])
    ours = choose(made, mood)
    for row, sample, choice in zip(mood, samples, ours, strict=True):
        theirs = [value for [[value, _]] in sample["resps"]]
        more = of_line_break(made, row["prompt"])
        assert theirs == pytest.approx([value + more for value in choice.logprobs], abs=1e-4)
    right = sum(row["choices"][choice.best] == row["completion"] for row, choice in zip(mood, ours, strict=True))
    if kind == "tiny-clm":  # the line break is the same for all choices
        assert found["results"]["mood"]["acc,none"] == pytest.approx(right / len(mood))


@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_the_harness_asks_for_whole_texts_behind_virtual_tokens(harness, in_tmp, monkeypatch, kind):
    from lit_fm.evaluate.harness import ask

    monkeypatch.setenv("HF_DATASETS_CACHE", str(in_tmp / "hf"))
    texts = ["The staff was friendly and the room was clean.", "Good"]
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (in_tmp / "whole.yaml").write_text(WHOLE.format(rows=in_tmp / "rows.jsonl"))
    made = objective("tiny-clm", SoftPrompt(tokens=5) if kind == "prompt" else Prefix(tokens=5))
    made.network.eval()
    found = ask(made.network, made.tokenizer, ["whole"], str(in_tmp))
    samples = sorted(found["samples"]["whole"], key=lambda one: one["doc_id"])
    for text, sample in zip(texts, samples, strict=True):
        ids = made.tokenizer(text)["input_ids"]  # the harness puts one token more in front
        read = torch.tensor([[made.tokenizer.bos_token_id, *ids[:-1]]])
        with torch.no_grad():
            logits = made.network(input_ids=read, attention_mask=torch.ones_like(read)).logits[0, -len(ids) :]
        assert sample["resps"][0][0] == pytest.approx(
            logits.log_softmax(-1)[range(len(ids)), ids].sum().item(), abs=1e-4
        )


def test_an_encoder_decoder_s_likelihoods_are_those_of_the_harness(harness, make_backbone, mood):
    """Token for token: as text, the harness takes the line break from what is read to what is written."""
    from lm_eval.models.huggingface import HFLM

    for made in (objective_of_t5(), seq2seq(make_backbone)):
        made.network.eval()
        theirs = HFLM(pretrained=made.network, tokenizer=made.tokenizer, batch_size=4)
        ids = made.prompt_ids(mood)
        asked = [
            ((row["prompt"], choice), read, made.tokenizer(choice, add_special_tokens=False)["input_ids"])
            for row, read in zip(mood, ids, strict=True)
            for choice in row["choices"]
        ]
        found = [value for value, _ in theirs._loglikelihood_tokens(asked, disable_tqdm=True)]
        assert found == pytest.approx([v for one in choose(made, mood) for v in one.logprobs], abs=1e-4)


def objective_of_t5():
    from lit_fm import SpanCorruption

    made = SpanCorruption("tiny-t5")
    made.configure_model()
    return made


def test_a_task_is_asked_of_a_run_and_written_beside_it(harness, lit, mood, in_tmp):
    small = ("--trainer.max_steps", "2", "--run.tracker", "none", "--score.examples", "0", "--data.rows", "64")
    assert lit("fit", "--config", "choose.yaml", *small).code == 0
    for name in ("evaluate.json", "evaluate-2.json"):
        done = lit("evaluate", "runs/choose/001", "--tasks", "mood", "--task_path", "tasks", "--limit", "4")
        assert done.code == 0, done.err
        found = json.loads((in_tmp / "runs/choose/001" / name).read_text())
        assert found["n-samples"]["mood"]["effective"] == 4
        assert f"{found['results']['mood']['acc,none']:.4f}" in done.out


@pytest.mark.slow
def test_a_task_that_is_not_known_is_one_clear_error(harness, lit, mood):
    """Slow, since all the tasks that the harness brings are looked through."""
    done = lit("evaluate", "tiny-clm", "--tasks", "moood", "--task_path", "tasks")
    assert done.code == 1
    assert "there is no task 'moood': did you mean 'mood'?" in done.err


def test_without_the_extra_it_is_named(lit, monkeypatch):
    monkeypatch.setattr("lit_fm.evaluate.harness.find_spec", lambda name: None)
    done = lit("evaluate", "tiny-clm", "--tasks", "mood")
    assert done.code == 1
    assert "not installed: pip install 'lit-fm[harness]'" in done.err
    assert done.err.count("\n") == 1


def test_text_is_measured_as_test_measures_it(lit, in_tmp):
    documents = smallworld.documents("medical", "test", 30)
    (in_tmp / "corpus").mkdir()
    for split, of in (("train", documents[:10]), ("validation", documents[10:20]), ("test", documents[20:])):
        (in_tmp / "corpus" / f"{split}.txt").write_text("\n\n".join(of))
    corpus = ("--config", "adapt-medical.yaml", "--data.source", "corpus", "--data.weights", "null")
    small = ("--data.block_size", "100", "--data.batch_size", "3")
    assert lit("fit", *corpus, *small, "--trainer.max_steps", "2", "--run.tracker", "none").code == 0
    run = in_tmp / "runs" / "adapt-medical" / "001"
    assert lit("test", "--run", run).code == 0
    expected = json.loads((run / "test.json").read_text())
    (in_tmp / "other.txt").write_text("\n\n".join(documents[:10]))
    done = lit("evaluate", run, "--text", "corpus/test.txt", "other.txt", "--block_size", "100", "--batch_size", "7")
    assert done.code == 0, done.err
    found = json.loads((run / "evaluate.json").read_text())["text"]
    for name in ("loss", "perplexity", "bits_per_byte"):
        assert found[f"test.txt/{name}"] == pytest.approx(expected[f"test_{name}"], rel=1e-6)
    done = lit("evaluate", run, "corpus/train.txt", "--block_size", "100")
    alone = json.loads((run / "evaluate-2.json").read_text())["text"]
    assert alone["perplexity"] == pytest.approx(found["other.txt/perplexity"], rel=1e-6)
    assert f"{alone['bits_per_byte']:.3f}" in done.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tiny-clm"], "nothing to evaluate on"),
        (["tiny-t5", "--text", "a.txt"], "needs a causal language model"),
        (["tiny-mlm", "--text", "a.txt"], "writes no text"),
        (["tiny-clm", "--text", "none.txt"], "no file or folder 'none.txt'"),
        (["tiny-clm", "--text", "a.txt", "--block_size", "513"], "takes 512 tokens: lower it"),
        (["tiny-clm", "--text", "a.txt", "--limit", "0"], "--limit is 0"),
        (["tiny-clm", "--tasks", ","], "nothing to evaluate on"),
        (["tiny-clm", "--tasks", "mood", "--shots", "-1"], "--shots is -1, expected at least 0"),
        (["tiny-clm", "--tasks", "mood", "--task_path", "none"], "--task_path: there is no folder 'none'"),
    ],
)
def test_a_wrong_use_is_one_clear_error(lit, in_tmp, args, message):
    (in_tmp / "a.txt").write_text("Some text.")
    done = lit("evaluate", *args)
    assert done.code == 1
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(in_tmp.glob("*.json"))


def test_the_harness_is_only_loaded_where_tasks_are_asked(lit, in_tmp):
    (in_tmp / "a.txt").write_text("Some text.\n\nMore text.")
    before = "lm_eval" in sys.modules
    assert lit("evaluate", "tiny-clm", "--text", "a.txt").code == 0
    assert ("lm_eval" in sys.modules) == before
