"""Examples in one row: none sees another, and little is padding."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SHARED, causal_configs, llama_config
from hypothesis import given
from hypothesis import strategies as st
from transformers import Gemma3TextConfig, MambaConfig, MistralConfig, MptConfig

from lit_fm import CausalLM, LoRA, MaskedLM, SoftPrompt
from lit_fm.data.order import BatchPlan
from lit_fm.data.packing import best_fit
from lit_fm.data.shares import Shares
from lit_fm.objectives.loss import sum_cross_entropy
from lit_fm.objectives.packed import EACH, exact_way, pack

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 2048}
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DEEP = {"intermediate_size": 64, "max_position_embeddings": 512, "num_key_value_heads": 2}
CONFIGS = {
    **causal_configs(),
    "mistral": MistralConfig(sliding_window=16, **SIZE, **DEEP, **IDS),
    "gemma3": Gemma3TextConfig(
        head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"], **SIZE, **DEEP, **IDS
    ),
    "mpt": MptConfig(d_model=32, n_layers=2, n_heads=4, **IDS),
    "mamba": MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, **IDS),
}
REFUSED = {"bloom", "mamba"}


# Which examples share a row


@given(st.lists(st.integers(1, 64), max_size=80), st.integers(64, 100))
def test_every_example_is_in_one_row_and_no_row_is_too_long(lengths, capacity):
    rows = best_fit(range(len(lengths)), lengths, capacity)
    assert Counter(i for row in rows for i in row) == Counter(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in row) <= capacity for row in rows)


def naive_best_fit(lengths, capacity):
    rooms = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append(min(fitting, default=capacity) - length)
    return sorted(rooms)


@given(st.lists(st.integers(1, 32), max_size=60))
def test_rows_are_those_of_best_fit_decreasing(lengths):
    rows = best_fit(range(len(lengths)), lengths, 32)
    assert sorted(32 - sum(lengths[i] for i in row) for row in rows) == naive_best_fit(lengths, 32)


def test_how_many_rows_there_are_does_not_hang_on_the_order():
    lengths = np.random.default_rng(0).integers(5, 400, 2000).tolist()
    counts = {len(best_fit(np.random.default_rng(i).permutation(2000), lengths, 512)) for i in range(5)}
    assert len(counts) == 1


def test_an_example_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="9 tokens does not fit in a row of 8"):
        best_fit([0], [9], 8)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data")
def test_rows_of_gsm8k_are_filled_to_97_percent():
    objective = CausalLM("tiny-clm")
    rows = [json.loads(line) for line in (SHARED / "gsm8k/train.jsonl").open()][:2000]
    items = objective.encode([{"prompt": r["question"], "completion": r["answer"]} for r in rows], 1024)
    lengths = np.array([len(item["input_ids"]) for item in items])
    assert BatchPlan(lengths, 4, 0, True, capacity=1024).fill() > 0.97


# The plan


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("options", [{"tokens": 200}, {"capacity": 128}, {"capacity": 128, "tokens": 300}])
def test_batches_by_tokens_and_packed_ones_hold_every_example_once_on_any_number_of_ranks(options, world):
    lengths = np.random.default_rng(0).integers(5, 90, 1003)
    plans = [BatchPlan(lengths, 4, 3, True, rank, world, **options) for rank in range(world)]
    assert Counter(i for plan in plans for deal in plan for i in deal.numbers) == Counter(range(1003))
    assert {len(list(plan)) for plan in plans} == {len(plans[0])}
    longest = [
        len(deal.rows) * max(sum(lengths[i] for i in row) for row in deal.rows)
        for p in plans
        for deal in p
        if deal.rows
    ]
    assert max(longest) <= options.get("tokens", 4 * 128)


def test_packed_batches_are_the_same_on_one_rank_and_on_two():
    lengths = np.random.default_rng(0).integers(5, 90, 300)
    one = list(BatchPlan(lengths, 8, 3, True, capacity=128))
    two = [list(BatchPlan(lengths, 4, 3, True, rank, 2, capacity=128)) for rank in range(2)]
    assert [set(a.numbers) for a in one] == [{*a.numbers, *b.numbers} for a, b in zip(*two, strict=True)]


def test_batches_without_padding_are_of_like_size_and_the_same_on_one_rank_and_on_two():
    lengths = np.random.default_rng(0).integers(5, 90, 320)
    plain, one = (BatchPlan(lengths, 16, 3, True, padded=padded) for padded in (True, False))
    assert Counter(i for deal in one for i in deal.numbers) == Counter(range(320))
    assert one.batch_tokens().max() < 0.8 * plain.batch_tokens().max()
    two = [list(BatchPlan(lengths, 8, 3, True, rank, 2, padded=False)) for rank in range(2)]
    assert [set(a.numbers) for a in one] == [{*a.numbers, *b.numbers} for a, b in zip(*two, strict=True)]


def test_a_plan_knows_when_its_epochs_differ_in_length():
    lengths = np.random.default_rng(0).integers(5, 90, 100)
    assert BatchPlan(lengths, 4, 0, True).steady
    assert BatchPlan(lengths, 4, 0, True, capacity=128).steady
    assert not BatchPlan(lengths, 4, 0, True, tokens=500).steady
    assert not BatchPlan(lengths, 4, 0, True, capacity=128, shares=Shares([60, 40], [50, 40], 0)).steady


def test_a_batch_too_small_for_the_longest_example_is_refused():
    with pytest.raises(ValueError, match="batch_tokens is 50, but a row has up to 60"):
        BatchPlan(np.array([60, 5]), 4, 0, True, tokens=50)


# Isolation


def random_items(lengths, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for length in lengths:
        ids = rng.integers(10, 2000, length).astype(np.int32)
        labels = np.where(rng.random(length) < 0.6, ids, -100).astype(np.int32)
        made.append({"input_ids": ids, "labels": labels})
    return made


@pytest.fixture
def built(make_backbone):
    def build(name, **more):
        objective = CausalLM(make_backbone(name, CONFIGS[name]), **more)
        objective.configure_model()
        return objective

    return build


ROWS = [[0, 1, 2], [3], [4, 5]]
LENGTHS = [7, 30, 19, 40, 2, 33]


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_logits_and_gradients_are_those_of_each_example_alone_or_packing_is_refused(built, name):
    objective = built(name)
    network, items = objective.network, random_items(LENGTHS)
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"cannot keep the examples of a row apart exactly"):
            exact_way(network, name, 128)
        return
    network.eval()
    total = sum(sum_cross_entropy(objective.logits(b), b["targets"]) for b in (objective.collate([i]) for i in items))
    total.backward()
    alone = torch.cat([objective.logits(objective.collate([item])) for item in items])
    gradients = {n: p.grad.clone() for n, p in network.named_parameters()}
    network.zero_grad()
    objective._way = exact_way(network, name, 128)
    batch = objective.pack([[items[i] for i in row] for row in ROWS])
    packed = objective.logits(batch)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    sum_cross_entropy(packed, batch["targets"]).backward()
    for n, p in network.named_parameters():
        torch.testing.assert_close(p.grad, gradients[n], atol=1e-4, rtol=1e-4, msg=n)


def test_a_backbone_that_asks_for_flash_attention_everywhere_is_packed_all_the_same(built):
    network = built("llama").network
    network.config._attn_implementation = "flash_attention_2"
    assert exact_way(network, "llama", 128) == "each"
    assert network.config._attn_implementation == EACH


def test_to_try_it_out_takes_few_logits(built):
    network, made = built("llama").network, []
    network.lm_head.register_forward_hook(lambda head, given, logits: made.append(logits.shape[:-1].numel()))
    exact_way(network, "llama", 500)
    assert sum(made) == 2 * 66  # of three examples alone, and together; the first of each is among them


@pytest.mark.parametrize("way", ["each", "mask"])
def test_recomputed_activations_keep_examples_apart_too(built, way):
    items, losses = random_items(LENGTHS), []
    for again in (False, True):
        objective = built("llama", activation_checkpointing=again)
        objective._way = exact_way(objective.network, "llama", 128)
        assert objective._way == "each"
        objective._way = way
        batch = objective.pack([[items[i] for i in row] for row in ROWS])
        loss = sum_cross_entropy(objective.logits(batch), batch["targets"])
        loss.backward()
        losses.append([loss.detach(), *(p.grad for p in objective.network.parameters())])
    for one, other in zip(*losses, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_what_is_fed_holds_no_padding_where_attention_allows():
    batch = pack([[*random_items([5, 9])], random_items([3])], "each")
    assert batch["input_ids"].shape == (1, 4 + 8 + 2)
    assert batch["lengths"] == [4, 8, 2]
    assert batch["position_ids"][0].tolist() == [*range(4), *range(8), *range(2)]
    assert batch["tokens"] == 17


def test_an_examples_last_token_never_learns_the_next_ones_first():
    items = random_items([5, 9, 3])
    for way in ("each", "mask"):
        batch = pack([items], way)
        expected = np.concatenate([item["labels"][1:] for item in items])
        assert batch["targets"].tolist() == expected[expected != -100].tolist()


def test_the_switched_attention_is_the_same_where_nothing_is_packed(built):
    objective = built("llama")
    network, items = objective.network.eval(), random_items([9, 4])
    batch = objective.collate(items)
    before = objective.logits(batch)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    ids = torch.tensor([[0, 0, 7, 8], [4, 5, 6, 7]])
    written = network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert exact_way(network, "llama", 64) == "each"
    assert network.config._attn_implementation == EACH
    assert torch.equal(objective.logits(batch), before)
    assert torch.equal(network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False), written)
    assert "attn" not in json.dumps(network.config.to_dict())  # nothing of it is exported


def test_lora_learns_the_same_from_packed_rows(built):
    objective = built("qwen3", adaptation=LoRA(rank=4))
    items = random_items(LENGTHS)
    objective._way = exact_way(objective.network, "qwen3", 128)
    packed = objective.token_losses(objective.pack([[items[i] for i in row] for row in ROWS]))
    alone = [objective.token_losses(objective.collate([item])) for item in items]
    torch.testing.assert_close(packed[0], sum(loss for loss, _ in alone))
    assert packed[1] == sum(n for _, n in alone)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda: CausalLM("tiny-clm", SoftPrompt(4)), "virtual tokens stand before a row"),
        (lambda: MaskedLM("tiny-mlm"), "MaskedLM does not pack examples"),
    ],
)
def test_what_cannot_be_packed_is_refused(objective, message):
    from lit_fm import InstructionData

    made, data = objective(), InstructionData("smallworld/sentiment", packing="best-fit", rows=20)
    made.configure_model()
    made._trainer = SimpleNamespace(datamodule=data)
    data.attach(made)

    def begin():
        data.setup("fit")
        made.check()

    with pytest.raises(ValueError, match=message):
        begin()


def test_llama_of_another_precision_packs_as_exactly_as_it_rounds(make_backbone):
    objective = CausalLM(make_backbone("llama16", llama_config(), torch.bfloat16), dtype="bfloat16")
    objective.configure_model()
    assert exact_way(objective.network, "llama", 128) == "each"
