"""A class for a text, a class for each word, and what they are measured by."""

import json

import lightning as L
import numpy as np
import pytest
import torch
from conftest import causal_configs, masked_configs, seq2seq_configs
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import f1_score
from sklearn.metrics import f1_score as sk_f1
from torch.nn import functional as F

from lit_fm import LoRA, SequenceClassification, TokenClassification
from lit_fm.data import smallworld
from lit_fm.data.tokens import IGNORED
from lit_fm.evaluate.entities import EntityF1, entities, entity_f1

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
XLNET = {"vocab_size": 2048, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "dropout": 0.0, "pad_token_id": 0}


def configs():
    from transformers import XLNetConfig

    decoders = {name: (config, "tiny-clm") for name, config in causal_configs().items()}
    encoders = {name: (config, "tiny-mlm") for name, config in masked_configs().items()}
    both = {name: (config, "tiny-t5") for name, config in seq2seq_configs().items()}
    return {**decoders, **encoders, **both, "xlnet": (XLNetConfig(**XLNET), "tiny-clm")}


def built(make_backbone, name, kind, labels, adaptation=None):
    L.seed_everything(0)
    config, tokenizer = configs()[name]
    made = kind(make_backbone(name, config, tokenizer=tokenizer), adaptation, labels=labels)
    made.configure_model()
    return made


WORDED = [name for name in configs() if name not in ("bart", "opt", "t5", "t5-v1.1", "xlnet")]
TEXTS = [
    {"prompt": "word " * n + f"and {n} more.", "completion": label} for n, label in ((1, "a"), (30, "b"), (9, "c"))
]


@pytest.mark.parametrize("name", configs())
def test_the_loss_of_a_class_does_not_depend_on_padding_and_is_that_of_transformers(make_backbone, name):
    made = built(make_backbone, name, SequenceClassification, ["a", "b", "c"])
    made.network.eval()
    items = made.encode(TEXTS, 200)
    with torch.no_grad():
        batch = made.collate(items)
        together = made.logits(batch)
        alone = torch.cat([made.logits(made.collate([item])) for item in items])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
        total, count = made.token_losses(batch)
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        theirs = made.network(**inputs, labels=batch["targets"]).loss
    torch.testing.assert_close(total / count, theirs, rtol=1e-6, atol=1e-6)
    assert batch["targets"].tolist() == [0, 1, 2]
    assert made.answers(TEXTS, 1) == [made.answers([example], 1)[0] for example in TEXTS]


def test_a_text_that_is_too_long_loses_its_left_and_is_counted(make_backbone):
    made = built(make_backbone, "bert", SequenceClassification, ["a", "b", "c"])
    whole, short = made.encode(TEXTS[:2], 200), made.encode(TEXTS[:2], 20)
    assert short[0]["input_ids"].tolist() == whole[0]["input_ids"].tolist()
    assert len(short[1]["input_ids"]) == 20
    assert short[1]["input_ids"][1:].tolist() == whole[1]["input_ids"][-19:].tolist()
    assert ["shortened" in item for item in (*whole, *short)] == [False, False, False, True]


def test_rows_are_filled_up_with_the_tokenizer_s_padding_or_else_its_end(make_backbone):
    config, _ = configs()["llama"]
    config = type(config)(**{**config.to_dict(), "pad_token_id": None})
    made = SequenceClassification(make_backbone("llama-without-pad", config), labels=["a", "b"])
    for pad in ("<pad>", None):
        made.tokenizer.pad_token = pad
        network, _ = made.build()
        assert network.config.pad_token_id == made.tokenizer.convert_tokens_to_ids(pad or made.tokenizer.eos_token)


SENTENCES = [
    {"tokens": ["Ada", "Morley", "left", "Brill", "."], "tags": ["B-PER", "I-PER", "O", "B-LOC", "O"]},
    {"tokens": ["Unbelievably", ",", "nobody", "came"], "tags": ["O", "O", "O", "O"]},
    {
        "tokens": ["Zoe", "\u200b", "met", "José-María", "O'Neill", "(", "in", "New-Brill", ")"],
        "tags": ["B-PER", "O", "O", "B-PER", "I-PER", "O", "O", "B-LOC", "O"],
    },
]


@pytest.mark.parametrize("name", WORDED)
def test_a_word_s_class_is_learnt_at_its_first_token_and_nowhere_else(make_backbone, name):
    made = built(make_backbone, name, TokenClassification, TAGS)
    for example, item in zip(SENTENCES, made.encode(SENTENCES, 200), strict=True):
        at = np.flatnonzero(item["labels"] != IGNORED)
        learnt = [TAGS[i] for i in item["labels"][at]]
        kept = [t for word, t in zip(example["tokens"], example["tags"], strict=True) if word != "\u200b"]
        assert learnt in (kept, example["tags"])
        pieces = [made.tokenizer.decode(part).strip() for part in np.split(item["input_ids"], at)[1:]]
        words = [word for word in example["tokens"] if word != "\u200b" or len(learnt) == len(example["tags"])]
        for piece, word in zip(pieces, words, strict=True):
            squeezed = piece.replace(" ", "").replace("[SEP]", "").replace("[UNK]", "")
            assert word.startswith(squeezed[:1]) or word == "\u200b"


@pytest.mark.parametrize("name", WORDED)
def test_the_loss_of_tags_is_that_of_transformers(make_backbone, name):
    made = built(make_backbone, name, TokenClassification, TAGS)
    made.network.eval()
    batch = made.collate(made.encode(SENTENCES, 200))
    labels = torch.full(batch["input_ids"].shape, IGNORED).flatten()
    labels[batch["rows"]] = batch["targets"]
    with torch.no_grad():
        total, count = made.token_losses(batch)
        logits = made.network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    theirs = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORED)
    torch.testing.assert_close(total / count, theirs, rtol=1e-6, atol=1e-6)
    assert batch["sentences"].tolist() == (batch["rows"] // batch["input_ids"].shape[1]).tolist()
    answers = made.answers(SENTENCES, 1)
    likeliest = iter(logits.flatten(0, 1)[batch["rows"]].argmax(-1).tolist())
    for example, answer, item in zip(SENTENCES, answers, made.encode(SENTENCES, 200), strict=True):
        said = [TAGS[next(likeliest)] for _ in range(int((item["labels"] != IGNORED).sum()))]
        silent = len(example["tokens"]) > len(said)  # a word of which the tokenizer leaves nothing
        assert [tag for tag, word in zip(answer.split(), example["tokens"], strict=True) if word != "\u200b"] == (
            said if silent or "\u200b" not in example["tokens"] else said[:1] + said[2:]
        )
    assert [len(answer.split()) for answer in answers] == [len(e["tokens"]) for e in SENTENCES]
    assert answers == [made.answers([example], 1)[0] for example in SENTENCES]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=12),
        min_size=1,
        max_size=6,
    )
)
def test_entity_f1_is_that_of_seqeval(sentences):
    guessed, right = ([[pair[side] for pair in words] for words in sentences] for side in (0, 1))
    if any(entities(tags) for tags in (*guessed, *right)):
        assert entity_f1(guessed, right) == pytest.approx(f1_score(right, guessed))
    else:
        assert entity_f1(guessed, right) == 0


def test_entity_f1_over_batches_is_that_over_all():
    rng = np.random.default_rng(0)
    metric, all_guessed, all_right = EntityF1(TAGS), [], []
    for _ in range(5):
        lengths = rng.integers(1, 9, 4)
        guess, right = (rng.integers(0, len(TAGS), lengths.sum()) for _ in range(2))
        metric.update(torch.tensor(guess), torch.tensor(right), torch.tensor(np.repeat(np.arange(4), lengths)))
        cuts = np.cumsum(lengths)[:-1]
        all_guessed += [[TAGS[i] for i in part] for part in np.split(guess, cuts)]
        all_right += [[TAGS[i] for i in part] for part in np.split(right, cuts)]
    assert float(metric.compute()) == pytest.approx(f1_score(all_right, all_guessed))


def test_accuracy_and_macro_f1_are_those_of_scikit_learn(make_backbone):
    made = SequenceClassification("tiny-mlm", labels=["a", "b", "c"])
    right, guess = list("aaabbbbccc"), list("aabbbbcccc")
    found = made.measure(guess, [[label] for label in right])
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["macro_f1"] == pytest.approx(sk_f1(right, guess, average="macro"))


def test_classes_are_those_of_the_training_rows_and_others_are_counted():
    made = SequenceClassification("tiny-mlm")
    made.see(lambda: [{"prompt": "x", "completion": "yes"}, {"prompt": "y", "completion": "no"}])
    assert made.labels == ["no", "yes"]
    found = made.encode([{"prompt": "x", "completion": "perhaps"}, {"prompt": " ", "completion": "no"}], 20)
    assert found == ["class that is not among the training rows'", "empty text"]


@pytest.mark.parametrize(("rows", "named"), [([("a", "x")], 1), ([(str(i), str(i)) for i in range(1200)], 1200)])
def test_answers_that_are_no_classes_are_refused(rows, named):
    with pytest.raises(ValueError, match=f"name {named} classes"):
        SequenceClassification("tiny-mlm").see(lambda: [{"prompt": a, "completion": b} for a, b in rows])


@pytest.mark.parametrize(
    "wrong", [{"tokens": ["a"], "tags": ["O", "O"]}, {"tokens": ["a"], "tags": ["B-X"]}, {"tokens": []}]
)
def test_rows_with_wrong_tags_are_dropped_with_their_reason(wrong):
    [reason] = TokenClassification("tiny-mlm", labels=TAGS).encode([wrong], 20)
    assert reason in ("not as many tags as tokens", "tag B-X is not among the training rows'", "no tokens and tags")


@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_a_new_head_learns_under_lora_and_comes_back_from_its_export(make_backbone, tmp_path, name):
    """A head is random: frozen, or not in the export, it would be another one at each load."""
    from peft import PeftModel

    made = built(make_backbone, name, SequenceClassification, ["a", "b", "c"], LoRA(rank=4))
    batch = made.collate(made.encode(TEXTS, 200))
    total, _ = made.token_losses(batch)
    total.backward()
    heads = [
        n
        for n, p in made.network.named_parameters()
        if ("classifi" in n or "score" in n or "pooler" in n) and p.requires_grad
    ]
    assert heads
    optimizer = torch.optim.SGD([p for p in made.network.parameters() if p.requires_grad], lr=0.1)
    optimizer.step()
    made.export(tmp_path)
    made.network.eval()
    again = SequenceClassification(made.backbone, labels=["a", "b", "c"])
    torch.manual_seed(99)
    again.configure_model()
    loaded = PeftModel.from_pretrained(again.network, tmp_path).eval()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, made.network(**inputs).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "measured"),
    [("classify.yaml", {"accuracy", "macro_f1"}), ("tag.yaml", {"accuracy", "macro_f1", "entity_f1"})],
)
def test_a_run_measures_before_and_after_and_its_checkpoint_tests_the_same(lit, in_tmp, config, measured):
    small = ("--data.rows", 64, "--data.batch_size", 16, "--trainer.max_steps", 6, "--run.tracker", "none")
    assert lit("fit", "--config", config, *small, "--model.from_scratch", "true").code == 0
    run = in_tmp / "runs" / config.removesuffix(".yaml") / "001"
    summary = json.loads((run / "summary.json").read_text())
    assert measured | {f"{name}_before" for name in measured} <= set(summary)
    done = lit("test", "--run", run)
    assert done.code == 0, done.err
    tested = json.loads((run / "test.json").read_text())
    assert {name: tested[name] for name in measured} == {name: summary[name] for name in measured}
    assert {f"test_{name}" for name in measured} <= set(tested)
    assert tested["test_accuracy"] == pytest.approx(tested["accuracy"])
    assert lit("predict", "--run", run).code == 0
    first = json.loads((run / "predictions.jsonl").read_text().splitlines()[0])
    assert first["prediction"]


def test_smallworld_s_entities_are_what_their_tags_say():
    for row in smallworld.rows("entities", "train", 200):
        names = [part.rsplit(" (", 1)[0] for part in row["completion"].split("), ")]
        found = sorted(entities(row["tags"]), key=lambda entity: entity[1])
        assert [" ".join(row["tokens"][a : b + 1]) for _, a, b in found] == (names if found else [])
        assert all(name in row["prompt"] for name in names if found)


def test_a_head_that_knows_the_classes_keeps_their_order(make_backbone, tmp_path):
    made = built(make_backbone, "bert", SequenceClassification, ["positive", "negative"])
    made.export(tmp_path)
    again = SequenceClassification(str(tmp_path))
    again.see(lambda: [{"completion": "negative"}, {"completion": "positive"}])
    assert again.labels == ["positive", "negative"]
    again.configure_model()
    other = SequenceClassification(str(tmp_path), labels=["a", "b", "c"])  # other classes: a new head
    other.configure_model()
    assert other.network.classifier.out_features == 3


FEW = ("--run.tracker", "none", "--trainer.max_steps", 2, "--model.from_scratch", "true")


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_finished_run_needs_its_training_rows_no_more(lit, in_tmp):
    rows = [{"prompt": f"text {i}", "completion": ["a", "b", "c"][i % 3]} for i in range(60)]
    written(in_tmp / "rows.jsonl", rows)
    written(in_tmp / "two.jsonl", [row for row in rows if row["completion"] != "c"])
    written(in_tmp / "new.jsonl", [{"prompt": "text"}])
    assert "3 classes: a, b, c." in lit("fit", "--config", "classify.yaml", "--data.source", "rows.jsonl", *FEW).out
    run = in_tmp / "runs" / "classify" / "001"
    assert lit("test", "--run", run, "--data.source", "two.jsonl").code == 0
    (in_tmp / "rows.jsonl").unlink()
    done = lit("predict", "--run", run, "--data.test", "new.jsonl")
    assert done.code == 0, done.err
    assert json.loads((run / "predictions.jsonl").read_text())["prediction"] in {"a", "b", "c"}


def test_files_of_their_own_are_the_splits(lit, in_tmp):
    for name, count in (("q", 60), ("v", 7), ("t", 9)):
        written(in_tmp / f"{name}.jsonl", [{"prompt": f"{name} {i}", "completion": "ab"[i % 2]} for i in range(count)])
    files = ("--data.source", "q.jsonl", "--data.validation", "v.jsonl", "--data.test", "t.jsonl")
    done = lit("fit", "--config", "classify.yaml", *files, *FEW)
    assert done.code == 0, done.err
    run = in_tmp / "runs" / "classify" / "001"
    told = json.loads((run / "run.json").read_text())["data"]
    assert {split: about["rows"] for split, about in told.items()} == {"train": 60, "validation": 7}
    assert json.loads((run / "summary.json").read_text())["test_examples"] == 9
    for verb in ("test", "validate"):
        assert lit(verb, "--run", run).code == 0


def test_a_head_s_adapter_writes_no_text(lit, in_tmp):
    lora = ("--data.rows", 64, "--model.adaptation", "lit_fm.LoRA", "--model.backbone", "tiny-clm")
    assert lit("fit", "--config", "classify.yaml", *lora, *FEW[:4]).code == 0
    run = in_tmp / "runs" / "classify" / "001"
    assert json.loads((run / "adapter" / "labels.json").read_text()) == ["negative", "positive"]
    assert "tells classes apart and writes no text" in lit("generate", "--model", run, "--prompt", "x").err
