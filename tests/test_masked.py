"""Masks, their randomness, the loss of hidden tokens, and blanks."""

import json

import lightning as L
import numpy as np
import pytest
import torch
from conftest import masked_configs
from torch.nn import functional as F

from lit_fm import MaskedLM
from lit_fm.data.pieces import Pieces
from lit_fm.data.tokenizer import train_tokenizer
from lit_fm.data.tokens import IGNORED
from lit_fm.objectives.noise import chosen_tokens


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory):
    """Folders of tokenizers for masked models: WordPiece as BERT, BPE as RoBERTa, Unigram."""
    root = tmp_path_factory.mktemp("masked")
    for kind in ("wordpiece", "bpe", "unigram"):
        train_tokenizer("smallworld/general", str(root / kind), kind, "masked", 1200, documents=2000)
        (root / kind / "config.json").write_text('{"model_type": "bert", "vocab_size": 1200}')
    return root


def masked(folder, **options):
    return MaskedLM(str(folder), **options)


def text_ids(made, documents=600):
    from lit_fm.data import smallworld

    return made.running(smallworld.documents("general", "train", documents))


@pytest.mark.parametrize("unit", ["token", "word", "ngram"])
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_masks_have_bert_s_rates_and_spare_special_tokens(tokenizers, kind, unit):
    made = masked(tokenizers / kind, unit=unit)
    ids = np.concatenate([text_ids(made)] * 4)[:100_000]
    blocks = [made.block(part, False)["input_ids"] for part in np.array_split(ids, len(ids) // 126)]
    hidden = [made.hide(block, (0, 0, number)) for number, block in enumerate(blocks)]
    ids, shown, labels = (np.concatenate(parts) for parts in (blocks, *zip(*hidden, strict=True)))
    chosen, special = labels != IGNORED, np.isin(ids, made.tokenizer.all_special_ids)
    assert special.sum() > 1000
    assert not (chosen & special).any()
    assert np.array_equal(labels[chosen], ids[chosen])
    assert np.array_equal(shown[~chosen], ids[~chosen])
    n = chosen.sum()
    assert abs(n / (~special).sum() - 0.15) < 0.003
    as_mask, kept = shown[chosen] == made.mask_id, shown[chosen] == ids[chosen]
    assert abs(as_mask.mean() - 0.8) < 3 * np.sqrt(0.8 * 0.2 / n)
    # A random token is the right one by chance, once in a vocabulary.
    assert abs(kept.mean() - 0.1) < 3 * np.sqrt(0.1 * 0.9 / n) + 0.1 / 1000
    others = shown[chosen][~as_mask & ~kept]
    assert not np.isin(others, made.tokenizer.all_special_ids).any()
    assert len(np.unique(others)) > 500


def test_masks_hang_on_seed_epoch_and_number_in_training_and_on_the_text_alone_in_evaluation(tokenizers):
    made = masked(tokenizers / "wordpiece")
    block = made.block(text_ids(made, 20)[:126], False)["input_ids"]
    same, again = made.hide(block, (1, 2, 3)), made.hide(block, (1, 2, 3))
    assert all(np.array_equal(a, b) for a, b in zip(same, again, strict=True))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not np.array_equal(made.hide(block, other)[1], same[1])
    assert np.array_equal(made.hide(block, None)[1], made.hide(block.copy(), None)[1])
    changed = block.copy()
    changed[5] = block[5] + 1
    assert not np.array_equal(made.hide(changed, None)[1] != IGNORED, made.hide(block, None)[1] != IGNORED)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_words_are_those_of_the_text(tokenizers, kind):
    made = masked(tokenizers / kind)
    text = "Unbelievable teachers, 12 gardeners: quietly (or not) went home."
    ids = np.array(made.tokenizer(text, add_special_tokens=False)["input_ids"])
    words = Pieces(made.tokenizer).words(ids)
    found = [made.tokenizer.decode(ids[words == word]).strip() for word in range(words.max() + 1)]
    expected = ["Unbelievable", "teachers", "gardeners", "quietly", "or", "not", "went", "home"]
    assert [word for word in found if word.isalpha() and word.strip()] == expected


@pytest.mark.parametrize("ngrams", [1, 3])
def test_whole_words_are_hidden(ngrams):
    rng = np.random.default_rng(0)
    groups = np.cumsum(rng.random(200) < 0.5)
    groups[::50] = -1
    runs = []
    for _ in range(200):
        chosen = chosen_tokens(groups, 0.15, ngrams, rng)
        assert not chosen[groups < 0].any()
        words = np.unique(groups[chosen])
        assert chosen[np.isin(groups, words)].all()
        runs += [len(run) for run in np.split(words, np.flatnonzero(np.diff(words) != 1) + 1)]
    assert (np.mean(runs) > 1.5) == (ngrams == 3)


@pytest.mark.parametrize("ngrams", [2, 3])
def test_n_words_in_a_row_are_hidden_with_a_probability_that_falls_as_1_n(ngrams):
    chosen = chosen_tokens(np.arange(200_000), 0.01, ngrams, np.random.default_rng(0))
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], chosen, [0]]))))[::2]
    shares = [(runs == n).mean() for n in range(1, ngrams + 1)]
    expected = 1 / np.arange(1, ngrams + 1)
    assert shares == pytest.approx(expected / expected.sum(), abs=0.03)
    assert (runs > ngrams).mean() < 0.04  # neighbours by chance


def test_the_unit_is_what_is_hidden_together(tokenizers):
    parted, longest = {}, {}
    for unit in ("token", "word", "ngram"):
        made = masked(tokenizers / "wordpiece", unit=unit, rate=0.05)
        ids = text_ids(made)[:20_000]
        hidden, words = made.hide(ids, (0, 0, 0))[1] != IGNORED, Pieces(made.tokenizer).words(ids)
        shares = np.bincount(words, hidden) / np.bincount(words)
        parted[unit] = ((shares > 0) & (shares < 1)).mean()
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], shares == 1, [0]]))))[::2]
        longest[unit] = [(runs == n).mean() for n in (1, 3, 4)]
    assert parted["token"] > 0.01
    assert parted["word"] == parted["ngram"] == 0
    assert longest["word"][0] > 0.9
    assert longest["ngram"][1] > 0.1
    assert longest["ngram"][2] < 0.06


@pytest.mark.parametrize("n", range(6))
def test_short_texts_have_one_hidden_token_at_least(n):
    groups = np.arange(n)
    rng = np.random.default_rng(0)
    assert all(chosen_tokens(groups, 0.15, 1, rng).sum() == min(n, 1) for _ in range(50) if n < 4)
    assert chosen_tokens(np.zeros(n, int), 0.15, 3, rng).sum() == n  # one long word


@pytest.mark.parametrize("name", masked_configs())
def test_the_loss_is_that_of_transformers_and_of_a_plain_reference(make_backbone, name):
    L.seed_everything(0)
    made = masked(make_backbone(name, masked_configs()[name], tokenizer="tiny-mlm"))
    made.configure_model()
    ids = text_ids(made, 30)
    items = [made.block(part, False) for part in (ids[:40], ids[40:55], ids[55:120])]
    batch = made.collate(items, [(0, 0, i) for i in range(3)])
    total, count = made.token_losses(batch)
    labels = torch.full(batch["input_ids"].shape, IGNORED).flatten()
    labels[batch["rows"]] = batch["targets"]
    theirs = made.network(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels.view_as(batch["input_ids"])
    ).loss
    torch.testing.assert_close(total / count, theirs, rtol=1e-6, atol=1e-6)
    plain = 0.0
    for row, item in enumerate(items):  # each alone, without padding
        shown, wanted = made.hide(item["input_ids"], (0, 0, row))
        logits = made.network(input_ids=torch.tensor(shown)[None]).logits[0]
        plain = plain + F.cross_entropy(logits, torch.tensor(wanted), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(total, plain, rtol=1e-5, atol=1e-5)
    assert made.logits(batch).shape == (count, made.network.config.vocab_size)


FIT = (
    "--config",
    "pretrain/tiny-mlm.yaml",
    "--data.documents",
    "300",
    "--data.batch_size",
    "8",
    "--run.tracker",
    "none",
)


def test_two_validations_agree_bit_for_bit(lit, in_tmp):
    assert lit("fit", *FIT, "--trainer.max_steps", "2").code == 0
    run = in_tmp / "runs" / "tiny-mlm" / "001"
    for size in (8, 8, 3):
        assert lit("validate", "--run", run, "--data.batch_size", size).code == 0
    one, again, other = ((run / f"validate{n}.json").read_text() for n in ("", "-2", "-3"))
    assert one == again
    assert json.loads(one)["val_loss"] == pytest.approx(json.loads(other)["val_loss"], rel=1e-6)


def test_workers_hide_the_same_tokens_as_the_main_process(lit, in_tmp):
    for workers in (0, 2):
        assert lit("fit", *FIT, "--trainer.max_steps", "3", "--data.workers", workers).code == 0
    metrics = [(in_tmp / "runs" / "tiny-mlm" / n / "metrics.jsonl").read_text().splitlines() for n in ("001", "002")]
    losses = [[json.loads(line)["train/loss"] for line in lines if "train/loss" in line] for lines in metrics]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_blocks_of_running_text_lose_no_token(tokenizers):
    made = masked(tokenizers / "wordpiece")
    ids = text_ids(made, 50)
    blocks = [made.block(part, False)["input_ids"] for part in np.split(ids, range(30, len(ids), 30))]
    cls, sep = made.tokenizer.cls_token_id, made.tokenizer.sep_token_id
    assert all(block[0] == cls and block[-1] == sep and len(block) <= 32 for block in blocks)
    assert not any(((block[:-1] == sep) & (block[1:] == sep)).any() for block in blocks)
    kept = np.concatenate([block[1:] for block in blocks])
    assert kept[kept != sep].tolist() == ids[ids != sep].tolist()


# Blanks


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("Review: good.\nSentiment:", "[CLS] Review : good . Sentiment : [MASK] [SEP]"),
        ("It was <mask>, they say.", "[CLS] It was [MASK] , they say . [SEP]"),
        ("<mask> it was.", "[CLS] [MASK] it was . [SEP]"),
        ("It was [MASK].", "[CLS] It was [MASK] . [SEP]"),
    ],
)
def test_the_answer_is_hidden_where_the_blank_is(prompt, shown):
    made = masked("tiny-mlm")
    [item] = made.encode([{"prompt": prompt, "completion": "positive"}], 64)
    tokens = made.tokenizer.convert_ids_to_tokens(item["input_ids"])
    assert tokens == made.tokenizer.convert_ids_to_tokens(made.tokenizer(shown, add_special_tokens=False)["input_ids"])
    labels = item["labels"][item["labels"] != IGNORED]
    assert made.tokenizer.decode(labels) == "positive"
    assert (item["input_ids"][item["labels"] != IGNORED] == made.mask_id).all()


def test_a_space_before_the_blank_belongs_to_the_answer(tokenizers):
    made = masked(tokenizers / "bpe")
    for prompt in ("It was <mask>.", "It was"):
        [item] = made.encode([{"prompt": prompt, "completion": "great"}], 64)
        answer = item["labels"][item["labels"] != IGNORED]
        assert answer.tolist() == made.tokenizer(" great", add_special_tokens=False)["input_ids"]


def test_choices_are_scored_by_their_tokens(make_backbone):
    """A reference by hand: the log-probability of a choice's tokens, each choice in as many blanks as the longest."""
    L.seed_everything(0)
    made = masked(make_backbone("bert", masked_configs()["bert"], tokenizer="tiny-mlm"))
    made.configure_model()
    made.network.eval()
    choices = ["bad weather", "good", "Monday", "unbelievable", "bad"]
    examples = [
        {"prompt": f"The {noun} was <mask> then.", "choices": choices} for noun in ("cat", "hotel", "test", "end")
    ]
    best = []
    blanks = max(len(made.tokenizer(choice, add_special_tokens=False)["input_ids"]) for choice in choices)
    assert blanks > 2
    for example in examples:
        scores = []
        for choice in choices:
            answer = made.tokenizer(choice, add_special_tokens=False)["input_ids"]
            text = example["prompt"].replace("<mask>", " ".join(["[MASK]"] * blanks))
            ids = torch.tensor(made.tokenizer(text)["input_ids"])
            with torch.no_grad():
                likely = made.network(input_ids=ids[None]).logits[0].log_softmax(-1)[ids == made.mask_id]
            scores.append(likely[range(len(answer)), answer].sum().item())
        best.append(choices[int(np.argmax(scores))])
    assert made.answers(examples, 8) == best
    assert set(best) != {choices[0]}


def test_a_text_is_read_whole_and_hidden_when_batched():
    made = masked("tiny-mlm")
    [item] = made.encode([{"text": " It was good."}], 64)
    assert item["input_ids"].tolist() == made.tokenizer("It was good.")["input_ids"]
    assert "labels" not in item


def test_an_answer_without_choices_is_asked_for():
    with pytest.raises(ValueError, match="a masked model chooses"):
        masked("tiny-mlm").answers([{"prompt": "a"}], 8)


def test_a_backbone_without_a_mask_is_refused(llama):
    with pytest.raises(ValueError, match="no mask token"):
        masked(llama).encode([{"prompt": "a", "completion": "b"}], 20)


def test_a_conversation_and_an_empty_answer_are_dropped_with_their_reason():
    twice = {"prompt": "<mask> and [MASK]", "completion": "x"}
    made = masked("tiny-mlm").encode([{"messages": []}, {"prompt": "a", "completion": " "}, twice], 20)
    assert made == ["a conversation has no blank", "empty answer", "more than one blank"]


@pytest.mark.parametrize(
    "wrong", [{"rate": 0.0}, {"rate": 1.0}, {"replace": (0.5, 0.1, 0.1)}, {"replace": (1.2, -0.1, -0.1)}]
)
def test_wrong_rates_are_refused(wrong):
    with pytest.raises(ValueError, match="MaskedLM needs rate"):
        masked("tiny-mlm", **wrong)


def test_a_block_longer_than_the_context_with_its_special_tokens_is_refused(lit):
    done = lit("fit", *FIT, "--data.block_size", "511", "--trainer.max_steps", "1")
    assert (
        "data.block_size is 511 and 2 special or virtual ones, but the backbone takes 512 tokens: lower it." in done.err
    )


def test_roberta_s_positions_leave_room_for_those_of_padding():
    from lit_fm.backbone import context_length

    assert context_length(masked_configs()["roberta"]) == 512


def test_words_stand_for_answers_and_an_answer_that_is_none_of_the_choices_is_refused(tmp_path):
    from lit_fm import InstructionData

    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"text {i}", "completion": i % 2}) + "\n" for i in range(40)))
    data = InstructionData(str(path), choices={"0": "terrible", "1": "great"})
    train = data.examples("train")
    assert {e["completion"] for e in train} == {"terrible", "great"}
    assert all(e["choices"] == ["terrible", "great"] for e in train)
    assert {e["prompt"].split()[1]: e["completion"] for e in train}["3"] == "great"
    with pytest.raises(ValueError, match=r"row \d+: the answer '1' is none of the choices \['0'\]"):
        InstructionData(str(path), choices=["0"]).examples("train")


def test_the_number_of_blanks_does_not_tell_the_answer():
    made = masked("tiny-mlm")
    choices = ["yes", "unbelievable"]
    examples = [
        {"prompt": "Is it so? <mask>. Then go.", "completion": choice, "choices": choices} for choice in choices
    ]
    short, long = made.encode(examples, 64)
    assert short["input_ids"].tolist() == long["input_ids"].tolist()
    for item, choice in ((short, "yes"), (long, "unbelievable")):
        answer = made.tokenizer(choice, add_special_tokens=False)["input_ids"]
        first = np.flatnonzero(item["input_ids"] == made.mask_id)[0]
        assert item["labels"][item["labels"] != IGNORED].tolist() == answer
        assert item["labels"][first : first + len(answer)].tolist() == answer
