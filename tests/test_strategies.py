"""What single adaptations promise beyond the contract that all of them keep."""

import lightning as L
import pytest
import torch
from conftest import causal_configs, llama_config
from test_loss_and_gradients import Fixed, fit, objective, ragged_items, reference_loss
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from lit_fm import AdaLoRA, Bottleneck, CausalLM, Full, LoRA, Peft, Prefix, Selective, SoftPrompt
from lit_fm.adapt.layers import ROLES, block_of
from lit_fm.backbone import load_network
from lit_fm.optim import Schedule
from lit_fm.screen import learnable


def learns(made):
    return {name for name, p in made.network.named_parameters() if p.requires_grad}


# Selective.


@pytest.mark.parametrize(
    ("adaptation", "expected"),
    [
        (Selective(["norms"]), lambda n: "norm" in n),
        (Selective(["attention"]), lambda n: "self_attn" in n),
        (Selective(["head"]), lambda n: n == "lm_head.weight"),
        (Selective(["embeddings"]), lambda n: n == "model.embed_tokens.weight"),
        (Selective(last_blocks=1), lambda n: "layers.1." in n),
        (Selective(["norms"], names="down_proj", last_blocks=1), lambda n: any(
            part in n for part in ("norm", "down_proj", "layers.1."))),
    ],
)  # fmt: skip
def test_what_is_named_learns_and_nothing_else(llama, adaptation, expected):
    made = objective(llama, adaptation)
    assert learns(made) == {n for n, _ in made.network.named_parameters() if expected(n)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn": ["biases"]}, r"LlamaForCausalLM has no biases of its own: choose from \['norms', 'head'"),
        ({"names": "q_prooj"}, "'q_prooj' is in no name of a weight"),
        ({"last_blocks": 3}, "last_blocks is 3, but the backbone has 2"),
    ],
)
def test_a_choice_without_a_weight_says_what_there_is(llama, settings, message):
    with pytest.raises(ValueError, match=message):
        objective(llama, Selective(**settings))


def test_a_head_that_is_the_embeddings_cannot_learn_alone(make_backbone):
    with pytest.raises(ValueError, match="Its head is its embeddings"):
        objective(make_backbone("tied", llama_config(tie_word_embeddings=True)), Selective(["head"]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"last_blocks": -1}, {"learn": ["all"], "layer_decay": 0}, {"last_blocks": 1, "unfreeze_every": 0},
     {"names": "("}],
)  # fmt: skip
def test_settings_of_selective_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"Selective|no regular expression"):
        Selective(**settings)


def test_blocks_thaw_one_after_the_other_from_the_top(llama):
    made = objective(llama, Selective(["all"], unfreeze_every=2))
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-2, weight_decay=0.1)
    moved = []

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, module, *args):
            self.before = {n: p.detach().clone() for n, p in module.network.named_parameters()}

        def on_train_batch_end(self, trainer, module, *args):
            now = module.network.named_parameters()
            moved.append({block_of(n) if block_of(n) is not None else n.split(".")[-2] for n, p in now
                          if not torch.equal(p, self.before[n])})  # fmt: skip

    batch = made.collate(ragged_items())
    L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[Watch()],
    ).fit(made, datamodule=Fixed([batch] * 6))  # fmt: skip
    top = {1, "norm", "lm_head"}
    assert moved == [top, top, top | {0}, top | {0}, top | {0, "embed_tokens"}, top | {0, "embed_tokens"}]


def rates(made, lr=1.0):
    made.optimizer = lambda params: torch.optim.SGD(params, lr=lr)
    made._optimizer_steps = lambda: 10
    optimizer = made.configure_optimizers()["optimizer"]
    names = {id(p): name for name, p in made.network.named_parameters()}
    found = [(names[id(p)], group["lr"]) for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len(dict(found))
    return dict(found), optimizer.param_groups[0]["lr"]


def test_rates_fall_with_depth(llama):
    found, first = rates(objective(llama, Selective(["all"], layer_decay=0.5)))
    expected = {"lm_head": 1, "model.norm": 1, "layers.1.": 0.5, "layers.0.": 0.25, "embed": 0.125}
    for name, rate in found.items():
        assert rate == next(value for part, value in expected.items() if part in name), name
    assert first == 1.0


def test_lora_plus_lets_b_learn_faster_and_shows_the_rate_that_was_asked_for(llama):
    made = objective(llama, LoRA(rank=4, plus=16.0))
    found, first = rates(made, lr=0.5)
    assert {("lora_B" in name, rate) for name, rate in found.items()} == {(True, 8.0), (False, 0.5)}
    assert first == 0.5


# LoRA and its kin.


def test_ranks_of_some_targets_differ(llama):
    made = objective(llama, LoRA(rank=4, ranks={"q_proj": 2, "layers.0.mlp.up_proj": 7}))
    found = {n.split(".lora_A")[0].split("model.model.")[1]: p.shape[0] for n, p in made.network.named_parameters()
             if "lora_A" in n}  # fmt: skip
    for name, rank in found.items():
        assert rank == (2 if "q_proj" in name else 7 if name.endswith("layers.0.mlp.up_proj") else 4)
    with pytest.raises(ValueError, match=r"adaptation\.ranks: no linear layer is called 'q_prooj'"):
        objective(llama, LoRA(ranks={"q_prooj": 2}))


@pytest.mark.parametrize(("settings", "scale"), [({}, 16 / 9), ({"rslora": True}, 16 / 3)])
def test_the_update_is_scaled_as_the_papers_say(llama, settings, scale):
    made = objective(llama, LoRA(rank=9, alpha=16.0, **settings))
    layer = made.network.base_model.model.model.layers[0].mlp.up_proj
    nn.init.normal_(layer.lora_B["default"].weight)
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * scale
    torch.testing.assert_close(layer.get_delta_weight("default"), update)


@pytest.mark.parametrize("settings", [{"init": "pissa", "bits": 4}, {"init": "olora", "dora": True}])
def test_settings_that_exclude_each_other_are_refused(settings):
    with pytest.raises(ValueError, match="changes the backbone's weights"):
        LoRA(**settings)


def test_pissa_starts_from_the_principal_singular_vectors(llama):
    plain = load_network(llama, AutoModelForCausalLM).model.layers[0].mlp.up_proj.weight
    layer = objective(llama, LoRA(rank=4, alpha=4.0, init="pissa")).network.base_model.model.model.layers[0].mlp.up_proj
    u, s, v = torch.linalg.svd(plain, full_matrices=False)
    torch.testing.assert_close(layer.get_delta_weight("default"), (u[:, :4] * s[:4]) @ v[:4], rtol=1e-4, atol=1e-6)


def test_adalora_prunes_to_the_rank_that_was_asked_for_and_keeps_its_bases_apart(llama):
    made = objective(llama, AdaLoRA(rank=3, first_rank=6, every=1, warmup=0.2, rest=0.2, orthogonal=0.5))
    factors = [p for n, p in made.network.named_parameters() if ".lora_A." in n]
    others = [p for n, p in made.network.named_parameters() if ".lora_B." in n]
    squares = [p @ p.T for p in factors] + [p.T @ p for p in others]
    expected = 0.5 * sum(float((p - torch.eye(6)).square().sum().sqrt()) for p in squares) / len(squares)
    assert float(made.adaptation.penalty(made.network)) == pytest.approx(expected, rel=1e-5)
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-2)
    items = ragged_items()
    total, _ = reference_loss(made.network, items)
    fit(made, [made.collate(items)] * 20, accumulate=1)
    values = [p for n, p in made.network.named_parameters() if ".lora_E." in n]
    assert sum(int((p != 0).sum()) for p in values) == 3 * len(values)
    assert len({int((p != 0).sum()) for p in values}) > 1  # not the same for all
    after, _ = reference_loss(made.network, items)
    assert after < total


@pytest.mark.parametrize(
    "wrong", [{"rank": 13}, {"warmup": 0.6, "rest": 0.5}, {"every": 0}, {"orthogonal": -1.0}, {"rank": 0}]
)
def test_settings_of_adalora_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="AdaLoRA"):
        AdaLoRA(**wrong)


def test_a_lora_checkpoint_is_under_three_times_what_learns(llama, tmp_path):
    made = objective(llama, LoRA(rank=8))
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-2)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(made, datamodule=Fixed([made.collate(ragged_items())] * 2))
    trainer.save_checkpoint(tmp_path / "step.ckpt")
    held = torch.load(tmp_path / "step.ckpt", weights_only=True)
    assert all("lora" in name for name in held["state_dict"])
    tensors = [t for state in held["optimizer_states"][0]["state"].values() for t in state.values()]
    size = sum(t.numel() * t.element_size() for t in (*held["state_dict"].values(), *tensors))
    assert size < 3.01 * 4 * learnable(made.network)[0]  # two moments and a step beside each weight


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHAA"}, "no tuner 'LOHAA': did you mean 'LOHA'"),
        ({}, "no tuner ''"),
        ({"peft_type": "LOHA", "rank": 3}, "LOHA has no setting 'rank'"),
    ],
)
def test_a_tuner_that_peft_does_not_have_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        Peft(config)


# Adapters.


@pytest.mark.parametrize("name", causal_configs())
def test_adapters_sit_behind_each_sub_layer(make_backbone, name):
    config = causal_configs()[name]
    both = objective(make_backbone(name, config), Bottleneck(width=4))
    one = objective(make_backbone(name, config), Bottleneck(width=4, placement="pfeiffer"))
    count = [sum(n.endswith("adapter.up.weight") for n, _ in made.network.named_parameters()) for made in (both, one)]
    assert count == [4, 2]  # of two blocks
    assert all(ROLES["feed-forward output"].search(n.split(".adapter")[0]) for n in learns(one))


def test_an_adapter_adds_what_the_papers_say(llama):
    made = objective(llama, Bottleneck(width=4, activation="relu"))
    layer = made.network.model.layers[0].mlp.down_proj
    for parameter in layer.adapter.parameters():
        nn.init.normal_(parameter)
    hidden, adapter = torch.randn(3, 64), layer.adapter
    h = F.linear(hidden, layer.weight)
    expected = h + F.relu(h @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(layer(hidden), expected)


def test_wrong_places_for_adapters_are_named(llama):
    with pytest.raises(ValueError, match="called 'down_prooj': did you mean 'down_proj'"):
        objective(llama, Bottleneck(targets=["down_prooj"]))


# Soft prompts.


@pytest.mark.parametrize("adaptation", [SoftPrompt(tokens=5), Prefix(tokens=5), SoftPrompt(tokens=5, encoder="mlp")])
@pytest.mark.parametrize("name", causal_configs())
def test_the_loss_behind_virtual_tokens_is_on_the_same_targets(make_backbone, name, adaptation):
    made = objective(make_backbone(name, causal_configs()[name]), adaptation)
    made.network.eval()
    items = ragged_items()
    with torch.no_grad():
        total, count = made.token_losses(made.collate(items))
        expected = counted = 0
        for item in items:  # each alone: right-padding behind it changes nothing
            ids = torch.tensor(item["input_ids"]).long()[None]
            labels = torch.tensor(item["labels"]).long()
            logits = made.network(input_ids=ids, use_cache=False).logits[0, -ids.shape[1] :]
            expected += F.cross_entropy(logits[:-1], labels[1:], reduction="sum")
            counted += int((labels[1:] != -100).sum())
    assert count == counted
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-4)


def test_a_soft_prompt_starts_from_what_is_said(llama):
    table = load_network(llama, AutoModelForCausalLM).get_input_embeddings().weight
    tokenizer = CausalLM(llama).tokenizer

    def start(**settings):
        return objective(llama, SoftPrompt(**settings)).network.prompt_encoder["default"].embedding.weight

    ids = tokenizer("Take one tablet by mouth", add_special_tokens=False)["input_ids"]
    vectors = start(tokens=len(ids) + 2, start="text", text="Take one tablet by mouth")
    assert torch.equal(vectors, table[[*ids, *ids[:2]]])
    labels = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in ("positive", "negative")]
    vectors = start(tokens=3, start="labels", labels=["positive", "negative"])
    torch.testing.assert_close(vectors, torch.stack([table[labels[i]].mean(0) for i in (0, 1, 0)]))
    vectors = start(tokens=4, start="vocabulary")
    assert all((vector == table).all(1).any() for vector in vectors)
    vectors = start(tokens=50, start="random")
    assert float(vectors.std()) == pytest.approx(float(table.std()), rel=0.1)


@pytest.mark.parametrize(
    "settings",
    [{"tokens": 0}, {"start": "text"}, {"text": "x"}, {"start": "labels"}, {"encoder": "mlp", "start": "random"},
     {"width": 4}],
)  # fmt: skip
def test_settings_of_soft_prompts_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="SoftPrompt"):
        SoftPrompt(**settings)


def test_documents_cannot_be_kept_apart_behind_virtual_tokens(llama, in_tmp):
    from lit_fm.objectives.borders import check_borders

    for adaptation in (SoftPrompt(tokens=5), Prefix(tokens=5)):
        made = objective(llama, adaptation)
        with pytest.raises(ValueError, match="cannot keep documents of a block apart"):
            check_borders(made.network, llama, True, 32)


# Combinations.


@pytest.mark.parametrize(
    "adaptation",
    [Full(), LoRA(rank=4), LoRA(rank=4, bits=4), Bottleneck(width=4), SoftPrompt(tokens=5), Selective(["norms"])],
)  # fmt: skip
def test_activation_checkpointing_changes_no_gradient(llama, adaptation):
    found = []
    for checkpointed in (False, True):
        L.seed_everything(7)
        made = CausalLM(llama, adaptation, schedule=Schedule("constant"), activation_checkpointing=checkpointed)
        made.configure_model()
        calls = []
        handle = next(
            m for n, m in made.network.named_modules() if n.endswith("layers.0.mlp")
        ).register_forward_pre_hook(lambda *args, calls=calls: calls.append(1))
        total, _ = made.token_losses(made.collate(ragged_items()))
        total.backward()
        handle.remove()
        assert len(calls) == 1 + checkpointed
        found.append({n: p.grad for n, p in made.network.named_parameters() if p.requires_grad})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_prefix_with_activation_checkpointing_is_refused_with_the_reason(llama):
    with pytest.raises(ValueError, match="Prefix puts keys and values into a cache"):
        CausalLM(llama, Prefix(), activation_checkpointing=True)


def test_an_adaptation_in_a_file_is_put_into_a_run(lit):
    done = lit("fit", "--config", "lora.yaml", "--model.adaptation", "adapt/dora.yaml", "--print_config")
    assert "dora: true" in done.out
    assert (
        "did you mean 'adapt/dora.yaml'"
        in lit("fit", "--config", "lora.yaml", "--model.adaptation", "adapt/dorra.yaml").err
    )


# What an independent review found.


def test_a_head_of_which_a_part_is_new_learns(make_backbone, tmp_path):
    from conftest import masked_configs
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from lit_fm import SequenceClassification

    folder = make_backbone("roberta", masked_configs()["roberta"], tokenizer="tiny-mlm")
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)
    network.save_pretrained(tmp_path / "three")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "three")
    made = SequenceClassification(str(tmp_path / "three"), LoRA(rank=4), labels=["x", "y"])
    made.configure_model()
    items = made.encode([{"prompt": "one two", "completion": "x"}, {"prompt": "three", "completion": "y"}], 60)
    made.token_losses(made.collate(items))[0].backward()
    head = {n: p for n, p in made.network.named_parameters() if "classifier" in n and p.requires_grad}
    assert len(head) == 4
    assert all(p.grad is not None and p.grad.any() for p in head.values())


@pytest.mark.parametrize(("name", "message"), [("t5", "has no head of its own"), ("t5-v1.1", None)])
def test_the_head_of_an_encoder_decoder_is_its_own(make_backbone, name, message):
    from conftest import seq2seq_configs
    from transformers import AutoModelForSeq2SeqLM

    network = AutoModelForSeq2SeqLM.from_pretrained(make_backbone(name, seq2seq_configs()[name], tokenizer="tiny-t5"))
    if message or network.lm_head.weight is network.shared.weight:
        with pytest.raises(ValueError, match="has no head of its own"):
            Selective(["head"]).apply(network, None)
    else:
        made = Selective(["head"]).apply(network, None)
        assert [n for n, p in made.named_parameters() if p.requires_grad] == ["lm_head.weight"]


def test_stacks_of_unequal_depth_have_tops_of_their_own():
    from transformers import AutoModelForSeq2SeqLM, BartConfig

    thin = {"d_model": 32, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 99}
    config = BartConfig(encoder_layers=4, decoder_layers=2, encoder_ffn_dim=64, decoder_ffn_dim=64, **thin)
    adaptation = Selective(last_blocks=1, layer_decay=0.5)
    network = adaptation.apply(AutoModelForSeq2SeqLM.from_config(config), None)
    found = {".".join(n.split(".")[1:4]) for n, p in network.named_parameters() if p.requires_grad}
    assert found == {"encoder.layers.3", "decoder.layers.1"}
    rates = adaptation.rates(network)
    assert rates["model.encoder.layers.3.fc1.weight"] == rates["model.decoder.layers.1.fc1.weight"] == 0.5
    assert rates["model.shared.weight"] == 0.5**5


def test_nothing_that_could_learn_at_first_is_said_at_once(llama):
    made = objective(llama, Selective(["embeddings"], unfreeze_every=5))
    with pytest.raises(ValueError, match="nothing of what learns is in the topmost block"):
        fit(made, [made.collate(ragged_items())], accumulate=1)
    made = objective(llama, Selective(["all"], unfreeze_every=5))
    with pytest.warns(UserWarning, match="would learn after 10 steps, the run has 2"):
        fit(made, [made.collate(ragged_items())] * 2, accumulate=1)


def test_factors_and_rows_of_tokens_do_not_decay(llama):
    from lit_fm import IA3
    from lit_fm.optim import decay_groups

    made = objective(llama, IA3())
    assert all(group.get("weight_decay") == 0.0 for group in decay_groups(made.network))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "ADALORA"}, "use lit_fm.AdaLoRA"),
        ({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4}, "use lit_fm.Prefix"),
        (
            {"peft_type": "LORA", "target_modules": ["q_proj"], "rank_pattern": {"q_prooj": 3}},
            "rank_pattern: no linear",
        ),
        ({"peft_type": "LORA", "target_modules": ["q_proj"], "modules_to_save": ["nonsense"]}, "no module 'nonsense'"),
        ({"peft_type": "LORA", "target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "shares its matrix"),
        ({"peft_type": "LORA", "target_modules": ".*lm_head"}, "shares its matrix"),
    ],
)
def test_what_a_tuner_would_ignore_or_break_is_refused(make_backbone, config, message):
    with pytest.raises(ValueError, match=message):
        objective(make_backbone("tied", llama_config(tie_word_embeddings=True)), Peft(config))


def test_ranks_of_a_layer_that_is_no_target_are_refused(llama):
    with pytest.raises(ValueError, match="'v_proj' is not among the targets"):
        objective(llama, LoRA(targets=["q_proj"], ranks={"v_proj": 2}))


def test_an_adapter_over_a_random_backbone_is_refused(llama):
    with pytest.raises(ValueError, match="the random backbone would be lost"):
        CausalLM(llama, LoRA(), from_scratch=True)


@pytest.mark.parametrize("settings", [{"labels": ["", "x"]}, {"labels": ["a", "b", "c"]}])
def test_labels_that_make_no_vectors_or_too_many_are_refused(llama, settings):
    with pytest.raises(ValueError, match="expected at most tokens"):
        objective(llama, SoftPrompt(tokens=2, start="labels", **settings))


def test_running_text_leaves_room_for_virtual_tokens(lit):
    more = ("--data.block_size", 500, "--data.documents", 200, "--trainer.max_steps", 1, "--run.tracker", "none")
    done = lit("fit", "--config", "adapt-medical.yaml", "--model.adaptation", "lit_fm.SoftPrompt", *more)
    assert "and 20 special or virtual ones, but the backbone takes 512" in done.err


def test_adalora_goes_on_with_the_ranks_and_the_importance_that_it_had(llama):
    def built():
        made = objective(llama, AdaLoRA(rank=2, first_rank=4, every=1, warmup=0.1, rest=0.3))
        made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-2)
        return made

    made = built()
    fit(made, [made.collate(ragged_items())] * 10, accumulate=1)
    checkpoint = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    again = built()
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    old, new = made.network.base_model.rankallocator, again.network.base_model.rankallocator
    assert again.network.peft_config["default"].rank_pattern == made.network.peft_config["default"].rank_pattern
    assert all(torch.equal(old.exp_avg_ipt[n], new.exp_avg_ipt[n]) for n in old.exp_avg_ipt)
    again.adaptation.begin(again.network, 12)
    again.adaptation.after_step(again.network, 11)  # beyond the pruning: by the pattern


def test_a_number_of_bits_that_does_not_exist_is_said(lit):
    done = lit("fit", "--config", "lora.yaml", "--model.adaptation.bits", "3")
    assert "model.adaptation.bits: expected one of 4, 8, got '3'" in done.err
