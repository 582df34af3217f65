"""Span corruption, denoising, and encoder to decoder."""

import lightning as L
import numpy as np
import pytest
import torch
from conftest import seq2seq_configs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lit_fm import Denoising, SpanCorruption
from lit_fm.backbone import decoder_start, load_tokenizer
from lit_fm.data.tokens import IGNORED
from lit_fm.objectives.noise import (
    infilled,
    middle_last,
    noise_spans,
    sentences_moved,
    span_counts,
    to_sentinels,
)

SENTINELS = list(range(1000, 1100))
TEXTS = {
    "thai": "แมวของฉันชื่อมะลิ มันชอบนอนบนเก้าอี้สีแดงทุกวันตอนบ่าย และไม่ชอบฝนเลย",
    "arabic": "ذهبت القطة الصغيرة إلى الحديقة، ثم عادت في المساء وهي جائعة جدا.",
    "chinese": "那只小猫昨天下午在花园里睡觉,后来下雨了,它就跑回家吃鱼。",
    "french": "Où est la petite clé rouge ? Je l'ai oubliée à l'hôtel, près du café.",
}


def restored(inputs, targets, sentinels=SENTINELS):
    """The text: each sentinel in the inputs replaced by what follows it in the targets."""
    marks, spans = set(sentinels), {}
    for token in targets.tolist():
        if token in marks:
            last = spans.setdefault(token, [])
        else:
            last.append(token)
    return [t for token in inputs.tolist() for t in (spans[token] if token in marks else [token])]


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 600), st.integers(0, 2**31), st.sampled_from([0.1, 0.15, 0.5]), st.sampled_from([1.0, 3.0, 10.0]))
def test_targets_put_back_into_inputs_are_the_text(length, seed, density, mean_span):
    ids = np.random.default_rng(seed).integers(3, 900, length)
    noise = noise_spans(length, density, mean_span, np.random.default_rng(seed))
    number, spans = span_counts(length, density, mean_span)
    if spans + 1 > len(SENTINELS):
        with pytest.raises(ValueError, match=r"needs .* sentinels, the tokenizer has 100"):
            to_sentinels(ids, noise, SENTINELS)
        return
    inputs, targets = to_sentinels(ids, noise, SENTINELS)
    assert restored(inputs, targets) == ids.tolist()
    assert (len(inputs), len(targets)) == (length - number + spans, number + spans + 1)
    used = [token for token in targets.tolist() if token in set(SENTINELS)]
    assert used == SENTINELS[: spans + 1]
    assert [token for token in inputs.tolist() if token in set(SENTINELS)] == used[:-1]
    assert length == 1 or not noise[0]


def test_lengths_are_those_of_the_recipe():
    """T5's: 15 % of the tokens, at least one, in spans of three on average."""
    for length in range(1, 601):
        noise = noise_spans(length, 0.15, 3.0, np.random.default_rng(length))
        starts = (noise & ~np.concatenate([[False], noise[:-1]])).sum()
        expected = min(max(int(np.round(length * 0.15)), 1), length - 1) if length > 1 else 1
        assert noise.sum() == expected
        assert starts == min(max(int(np.round(expected / 3)), 1), max(length - expected, 1))


@pytest.mark.parametrize("name", TEXTS)
def test_texts_of_many_scripts_come_back_to_the_letter(name):
    made = SpanCorruption("tiny-t5")
    ids = made.running([TEXTS[name]])
    assert made.tokenizer.decode(ids) == TEXTS[name]
    for seed in range(30):
        inputs, targets = made.spoil(ids, np.random.default_rng(seed))
        assert made.tokenizer.decode(restored(inputs, targets, made.sentinels)) == TEXTS[name]
        assert len(inputs) < len(ids)


def test_the_example_of_the_t5_paper_comes_out_right():
    words = "Thank you for inviting me to your party last week".split()
    noise = np.array([word in ("for", "inviting", "last") for word in words])
    names = [*words, "<X>", "<Y>", "<Z>"]
    inputs, targets = to_sentinels(np.arange(len(words)), noise, range(len(words), len(names)))
    assert [names[i] for i in inputs] == "Thank you <X> me to your party <Y> week".split()
    assert [names[i] for i in targets] == "<X> for inviting <Y> last <Z>".split()


def test_noise_is_spread_evenly_and_spans_are_three_tokens_on_average():
    rng = np.random.default_rng(0)
    drawn = np.stack([noise_spans(400, 0.15, 3.0, rng) for _ in range(2000)])
    assert drawn.mean() == 0.15
    middle = drawn[:, 40:-40].mean(0)
    assert abs(middle - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 2000)
    assert drawn.sum() / (drawn[:, 1:] & ~drawn[:, :-1]).sum() == 3.0


def test_too_few_sentinels_are_no_silent_matter(lit):
    done = lit(
        "fit", "--config", "pretrain/tiny-t5.yaml", "--data.documents", "500", "--data.block_size", "3000", "--run.tracker",
        "none", "--trainer.max_steps", "1", "--score.examples", "0",
    )  # fmt: skip
    assert done.code == 1
    assert "needs 151 sentinels, the tokenizer has 100: lower data.block_size" in done.err
    assert "Traceback" not in done.err


def test_a_tokenizer_without_sentinels_is_pointed_to_denoising():
    with pytest.raises(ValueError, match=r"Use lit_fm\.Denoising"):
        _ = SpanCorruption("tiny-clm").sentinels


def test_infilling_leaves_one_mask_for_a_span_of_any_length():
    rng, lengths = np.random.default_rng(0), []
    for _ in range(300):
        ids = np.arange(10, 210)
        made = infilled(ids, 0.3, 3.0, 0, rng)
        kept = made[made != 0]
        assert len(kept) == 140
        assert (np.diff(kept) > 0).all()
        masks = np.flatnonzero(made == 0)
        assert (np.diff(masks) > 1).all()
        around = np.concatenate([[9], made, [210]])
        lengths += [around[i + 2] - around[i] - 1 for i in masks]
    assert min(lengths) == 0  # a mask where nothing was
    assert abs(np.mean(lengths) - 3.0) < 0.1


def test_infilling_takes_texts_of_any_length():
    rng = np.random.default_rng(0)
    for length in [*range(1, 30)] * 50:
        made = infilled(np.arange(10, 10 + length), 0.3, 3.0, 0, rng)
        assert (made != 0).sum() == length - round(length * 0.3)


def test_sentences_move_whole():
    ids, ends = np.arange(12), np.arange(12) % 4 == 3
    seen = {tuple(sentences_moved(ids, ends, np.random.default_rng(seed)).tolist()) for seed in range(60)}
    assert len(seen) == 6
    assert (4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11) in seen


def test_denoising_writes_the_whole_text():
    made = Denoising("tiny-t5")
    text = "The cat sleeps. Where is the dog? It ran away! Nobody knows."
    ids = made.running([text])
    inputs, targets = made.spoil(ids, np.random.default_rng(1))
    assert made.tokenizer.decode(targets) == text
    assert made.tokenizer.mask_token_id in inputs
    calm = Denoising("tiny-t5", rate=0.0)
    moved = {calm.tokenizer.decode(calm.spoil(ids, np.random.default_rng(seed))[0]) for seed in range(9)}
    sentences = ["The cat sleeps.", " Where is the dog?", " It ran away!", " Nobody knows."]
    assert all(sentence in text for text in moved for sentence in sentences)
    assert len(moved) > 5


def test_the_middle_goes_last():
    ids, cuts = np.arange(20), []
    for seed in range(500):
        made = middle_last(ids, (-1, -2, -3), np.random.default_rng(seed)).tolist()
        assert made[0] == -1
        suffix, middle = made.index(-2), made.index(-3)
        assert made[1:suffix] + made[middle + 1 :] + made[suffix + 1 : middle] == ids.tolist()
        cuts += [suffix - 1, suffix - 1 + len(made) - middle - 1]
    assert np.bincount(cuts, minlength=21).min() > 20  # of 1,000 that fall anywhere alike


# Encoder to decoder


def pairs(made):
    examples = [
        {"prompt": "English: Where is the key?\nFrench:", "completion": "Où est la clé ?"},
        {"prompt": "Say it", "completion": "again and again, and then once more."},
        {"prompt": "A long one. " * 10, "completion": "x"},
    ]
    return made.encode(examples, 200)


@pytest.mark.parametrize("name", seq2seq_configs())
@pytest.mark.parametrize("kind", ["pairs", "text"])
def test_the_loss_is_that_of_transformers_and_of_a_plain_reference(make_backbone, name, kind):
    L.seed_everything(0)
    made = SpanCorruption(make_backbone(name, seq2seq_configs()[name], tokenizer="tiny-t5"))
    made.configure_model()
    ids = made.running(list(TEXTS.values()))
    items = pairs(made) if kind == "pairs" else [{"input_ids": ids[:n]} for n in (40, 25, 3)]
    draws = [(0, 0, i) for i in range(3)]
    batch = made.collate(items, draws)
    total, count = made.token_losses(batch)
    labels = torch.full(batch["decoder_input_ids"].shape, IGNORED).flatten()
    labels[batch["rows"]] = batch["targets"]
    labels = labels.view_as(batch["decoder_input_ids"])
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    theirs = made.network(**inputs, labels=labels).loss
    torch.testing.assert_close(total / count, theirs, rtol=1e-6, atol=1e-6)
    plain = 0.0
    for item, draw in zip(items, draws, strict=True):  # each alone, without padding
        read, written = (torch.tensor(np.asarray(part), dtype=torch.long)[None] for part in made.pair(item, draw))
        seen = torch.cat([torch.tensor([[decoder_start(made.network.config)]]), written[:, :-1]], dim=1)
        logits = made.network(input_ids=read, decoder_input_ids=seen).logits[0]
        plain = plain + F.cross_entropy(logits, written[0], reduction="sum")
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=1e-5)


def test_prompt_and_answer_end_with_the_token_that_ends_a_text():
    made = SpanCorruption("tiny-t5")
    item = pairs(made)[0]
    end = made.tokenizer.eos_token
    assert made.tokenizer.decode(item["input_ids"]) == f"English: Where is the key?\nFrench:\n{end}"
    assert made.tokenizer.decode(item["labels"]) == f"Où est la clé ?{end}"


def test_a_long_text_loses_its_right_and_is_counted():
    made = SpanCorruption("tiny-t5")
    whole, cut, none = made.encode([{"text": "one two three four five"}], None) + made.encode(
        [{"text": "one two three four five"}, {"text": ""}], 4
    )
    assert cut["input_ids"].tolist() == whole["input_ids"][: 4 - made.block_frame].tolist()
    assert ("shortened" in whole, "shortened" in cut) == (False, True)
    assert none == "empty text"


def test_long_prompts_lose_their_left_and_long_answers_are_dropped():
    made = SpanCorruption("tiny-t5")
    long, answer = made.encode(
        [{"prompt": "a b " * 50 + "end", "completion": "c"}, {"prompt": "p", "completion": "d " * 60}], 20
    )
    assert len(long["input_ids"]) == 20
    assert "shortened" in long
    assert made.tokenizer.decode(long["input_ids"]).endswith("end\n</s>")
    assert answer == "answer longer than 20 tokens"


@pytest.mark.parametrize("name", seq2seq_configs())
def test_answers_in_a_batch_are_those_of_single_prompts(make_backbone, name):
    L.seed_everything(0)
    made = SpanCorruption(make_backbone(name, seq2seq_configs()[name], tokenizer="tiny-t5"))
    made.configure_model()
    examples = [{"prompt": "word " * n} for n in (1, 30, 7, 90)]
    together = made.answers(examples, 12)
    assert together == [made.answers([example], 12)[0] for example in examples]


def test_a_decoder_that_starts_with_nothing_is_refused(make_backbone):
    config = seq2seq_configs()["bart"]
    config.decoder_start_token_id = None
    with pytest.raises(ValueError, match="no decoder_start_token_id"):
        decoder_start(config)
    del config.decoder_start_token_id
    t5 = seq2seq_configs()["t5"]
    t5.decoder_start_token_id = None
    assert decoder_start(t5) == 0  # T5 starts with padding


@pytest.mark.parametrize("how", [("--model.dtype", "float16"), ("--trainer.precision", "16-true")])
def test_t5_in_half_precision_is_refused(lit, how):
    done = lit("fit", "--config", "pretrain/tiny-t5.yaml", "--data.documents", "300", "--run.tracker", "none", *how)
    assert done.code == 1
    assert "overflows in 16-bit floats" in done.err


def test_the_export_reads_back_with_the_same_logits(make_backbone, tmp_path):
    """T5 v1.1 does not scale what goes into the head: that must come through a saved configuration."""
    from transformers import AutoModelForSeq2SeqLM

    made = SpanCorruption(make_backbone("t5-v1.1", seq2seq_configs()["t5-v1.1"], tokenizer="tiny-t5"))
    made.configure_model()
    made.network.eval()
    made.export(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        before, after = (network(input_ids=ids, decoder_input_ids=ids).logits for network in (made.network, again))
    assert torch.equal(before, after)
    assert load_tokenizer(str(tmp_path)).get_vocab() == made.tokenizer.get_vocab()


def test_draws_differ_between_epochs_and_evaluation_has_its_own():
    made = SpanCorruption("tiny-t5")
    item = {"input_ids": made.running(list(TEXTS.values()))}
    one = made.pair(item, (0, 0, 5))[0].tolist()
    assert made.pair(item, (0, 0, 5))[0].tolist() == one
    assert made.pair(item, (0, 1, 5))[0].tolist() != one
    assert made.pair(item, None)[0].tolist() == made.pair(item, None)[0].tolist()
