"""From row to labels, over random texts, templates and tokenizers: the answer is learnt, all of it and nothing else."""

import json
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
from conftest import SHARED, causal_configs
from hypothesis import given, settings
from hypothesis import strategies as st
from test_encoding import TOKENIZERS
from test_formats import _real

from lit_fm import CausalLM, InstructionData
from lit_fm.data.templates import Templates, prompt_text
from lit_fm.data.tokens import IGNORED

TEXTS = st.text(alphabet="abeyot:.!?\n0123 ,ésTk{}%|/東ก", max_size=40)
TEMPLATES = ["{{q}} ||| {{a}}", "Read this.\n{{q}}\nAnswer: ||| {{a}}", "{{q}}{% if a %} ||| {{a}}{% endif %}"]
REASONS = {"empty answer", "no token to learn", "no template has text for it"}
DISTINCT = {"bpe", "bpe-untrimmed", "bpe-bos"}  # lose nothing of a text


@settings(max_examples=200, deadline=None)
@given(q=TEXTS, a=TEXTS, template=st.sampled_from(TEMPLATES), limit=st.one_of(st.none(), st.integers(4, 60)))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_not_masked_is_the_completion_and_its_end(name, q, a, template, limit):
    objective, tokenizer = CausalLM("tiny-clm"), TOKENIZERS[name]
    objective.__dict__["tokenizer"] = tokenizer
    example = Templates(template).render({"q": q, "a": a}, 1)
    [item] = [example] if isinstance(example, str) else objective.encode([example], limit)
    if isinstance(item, str):
        assert item in REASONS or item.startswith("answer longer than")
        return
    ids, labels = item["input_ids"], item["labels"]
    learnt = labels[labels != IGNORED]
    assert len(learnt) > 0
    assert labels[0] == IGNORED  # nothing stands before the first token
    assert limit is None or len(ids) <= limit
    assert learnt[-1] == ids[-1] == tokenizer.eos_token_id
    assert (ids == tokenizer.bos_token_id).sum() == ("<s>" in tokenizer.decode(tokenizer("a")["input_ids"]))
    if name in DISTINCT:
        assert tokenizer.decode(learnt[:-1]) == example["completion"]
        asked = tokenizer.decode(ids[labels == IGNORED], skip_special_tokens=True)
        whole = prompt_text(example["prompt"])
        # A cut goes between tokens, which may be within a character.
        assert asked == whole or (limit and whole.endswith(asked.lstrip("\ufffd")))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
def test_every_file_of_real_data_trains(make_backbone):
    """20 steps each; what is read, learnt from and dropped adds up to the rows of the manifest."""
    backbone = make_backbone("llama", causal_configs()["llama"])
    for name, count, columns in (param.values for param in _real()):
        data = InstructionData(
            str(SHARED / name), columns=columns, batch_size=2, max_length=512, validation_share=0, test_share=0
        )
        made = CausalLM(backbone)
        trainer = L.Trainer(
            max_steps=20, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(made, data)
        report = data.report
        assert trainer.global_step == 20 or report["train"]["rows"] < 40, name
        assert np.isfinite(float(trainer.callback_metrics["train/loss"]))
        rows = sum(about["rows"] for about in report.values())
        assert rows == int(count.split("/")[-1].split()[0]), name
        assert all(a["examples"] + sum(a["dropped"].values()) == a["rows"] for a in report.values())
        reasons = {why for about in report.values() for why in about["dropped"]}
        assert reasons <= {"an answer that was not wanted", "answer longer than 512 tokens", "empty answer"}, (
            name,
            reasons,
        )


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
@pytest.mark.parametrize(
    "name", ["dpo_en_demo", "fastchat_dummy_conversation", "glaive_toolcall_en_demo", "kto_en_demo", "identity"]
)
def test_of_real_conversations_exactly_what_the_assistant_says_is_learnt(name):
    objective, data = CausalLM("tiny-clm"), InstructionData(str(SHARED / "chat" / f"{name}.json"), test_share=0)
    data.attach(objective)
    data.trainer = None
    data.setup("fit")
    tokenizer = objective.tokenizer
    for split in ("train", "validation"):
        made = data.examples(split)
        items = objective.encode(made, None)
        for example, item in zip(made, items, strict=True):
            learnt = tokenizer.decode(item["labels"][item["labels"] != IGNORED])
            assert learnt == "".join(said(example)), example


def said(example):
    if "messages" not in example:
        return [example["completion"] + "</s>"]
    turns = [turn for turn in example["messages"] if turn["role"] == "assistant"]
    calls = [[call["function"] for call in turn.get("tool_calls", ())] for turn in turns]
    return [
        (json.dumps(c, ensure_ascii=False) if c else t["content"]) + "</s>" for t, c in zip(turns, calls, strict=True)
    ]


def test_an_example_without_a_target_never_reaches_training(tmp_path):
    rows = [
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "completion": ""},
        {"prompt": "a", "completion": "b " * 99},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 5))
    data = InstructionData(str(tmp_path / "rows.jsonl"), max_length=32, validation_share=0, test_share=0)
    strategy = SimpleNamespace(local_rank=0, barrier=lambda: None)
    data.trainer = SimpleNamespace(
        lightning_module=CausalLM("tiny-clm"), strategy=strategy, global_rank=0, world_size=1
    )
    data.setup("fit")
    assert data.report["train"]["dropped"] == {"empty answer": 5, "answer longer than 32 tokens": 5}
    assert all((item["labels"] != IGNORED).any() for item in data.items["train"])


def test_conversations_are_the_same_from_two_threads_as_from_one(tmp_path):
    """What is generated is marked in the template, which threads share."""
    turns = [[("user", f"q {i}"), ("assistant", f"answer {i}"), ("user", "y"), ("assistant", "z")] for i in range(3000)]
    rows = [{"messages": [{"role": role, "content": text} for role, text in one]} for one in turns]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    objective = CausalLM("tiny-clm")
    objective.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '\\n' }}{% endfor %}"
    )
    data = InstructionData(str(tmp_path / "a.jsonl"), validation_share=0, test_share=0)
    data.attach(objective)
    data.setup("fit")
    assert data.report["train"]["dropped"] == {}
    for stored, alone in zip(data.items["train"], objective.encode(rows, 512), strict=True):
        assert all(np.array_equal(stored[name], alone[name]) for name in alone)


def test_a_turn_of_no_weight_is_read_and_not_learnt():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "no", "weight": 0}]
    turns += [{"role": "user", "content": "r"}, {"role": "assistant", "content": "yes", "weight": 1}]
    objective = CausalLM("tiny-clm")
    [item] = objective.encode([{"messages": turns}], None)
    assert objective.tokenizer.decode(item["labels"][item["labels"] != IGNORED]) == "yes</s>"
    assert "no</s>" in objective.tokenizer.decode(item["input_ids"])


@pytest.mark.parametrize("listed", [False, True])
def test_a_template_file_is_used_and_its_changes_are_seen(lit, tmp_path, in_tmp, listed):
    (in_tmp / "a.jsonl").write_text('{"q": "x", "a": "y"}\n' * 9)
    shown = []
    for word in ("OLD", "NEW"):
        entry = f"{{jinja: '{word}: {{{{q}}}} ||| {{{{a}}}}', name: one}}"
        (in_tmp / "t.yaml").write_text(f"templates:\n  id: !Template {entry}\n")
        template = '["t.yaml"]' if listed else "t.yaml"
        done = lit(
            "data", "show", "--config", "lora.yaml", "--data.source", "a.jsonl", "--data.template", template, "-n", 1
        )
        assert done.code == 0, done.err
        shown.append(done.out)
    assert "OLD: x" in shown[0]
    assert "NEW: x" in shown[1]


def test_a_wrong_column_is_named_with_the_nearest(lit, in_tmp):
    (in_tmp / "bank.csv").write_text("text,category\nI lost my card,lost\n" * 2)
    columns = ("--data.columns.prompt", "txt", "--data.columns.completion", "category")
    done = lit("fit", "--config", "lora.yaml", "--data.source", "bank.csv", *columns)
    assert done.code == 1
    assert "row 1 has no field 'txt' for 'prompt': did you mean 'text'" in done.err


def test_another_tokenizer_misses_the_cache(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "one two", "completion": "three"}\n' * 9)
    stored = []
    for name in ("bpe", "unigram", "bpe"):
        objective, data = CausalLM("tiny-clm"), InstructionData(str(tmp_path / "a.jsonl"))
        objective.__dict__["tokenizer"] = TOKENIZERS[name]
        data.attach(objective)
        data.setup("fit")
        stored.append(data.items["train"][0]["input_ids"].tolist())
    assert stored[0] == stored[2] != stored[1]
