"""What LoRA, its export, and the loading of a backbone promise."""

import pytest
import torch
from conftest import causal_configs, llama_config
from safetensors.torch import load_file, save_file
from test_loss_and_gradients import fit, objective, ragged_items
from transformers import AutoModelForCausalLM

from lit_fm import CausalLM, Full, LoRA, backbone
from lit_fm.adapted import load_adapted
from lit_fm.backbone import load_network

IDS = torch.arange(3, 60)[None]


def logits(network):
    network.eval()
    with torch.no_grad():
        return network(input_ids=IDS).logits


def test_a_target_that_matches_nothing_is_named_with_those_that_exist(llama):
    with pytest.raises(ValueError, match=r"called 'k_prooj': did you mean 'k_proj'\?.*'down_proj'"):
        objective(llama, LoRA(targets=["q_proj", "k_prooj"]))


def test_one_target_may_be_given_as_a_word(llama):
    learns = [n for n, p in objective(llama, LoRA(targets="v_proj")).network.named_parameters() if p.requires_grad]
    assert learns
    assert all("v_proj" in name for name in learns)


def test_lora_on_one_of_two_tied_matrices_is_refused(make_backbone):
    with pytest.raises(ValueError, match="shares its matrix with the input embeddings"):
        objective(make_backbone("tied", llama_config(tie_word_embeddings=True)), LoRA(targets=["lm_head"]))


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="LoRA needs rank >= 1"):
        LoRA(**wrong)


@pytest.mark.parametrize("adaptation", [Full(), LoRA(rank=4)])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_export_gives_the_same_logits_in_plain_transformers_and_peft(make_backbone, name, adaptation, tmp_path):
    folder = make_backbone(name, causal_configs()[name])
    made = objective(folder, adaptation)
    fit(made, [made.collate(ragged_items())], accumulate=1)
    made.export(tmp_path / "out")
    expected = logits(made.network)
    if isinstance(adaptation, LoRA):
        from peft import AutoPeftModelForCausalLM, PeftModel

        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path / "out")
        assert torch.equal(logits(plain), logits(AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")))
    else:
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    rounding = {"rtol": 1e-5, "atol": 1e-6} if isinstance(adaptation, LoRA) else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(logits(plain), expected, **rounding)  # peft adds LoRA in another order
    ours, tokenizer = load_adapted(str(tmp_path / "out"))
    assert torch.equal(logits(plain), logits(ours))
    assert tokenizer.eos_token_id in [ours.generation_config.eos_token_id]


# Loading


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float16])
def test_weights_that_learn_are_float32_whatever_the_checkpoint_was_saved_in(make_backbone, saved):
    folder = make_backbone(f"saved-{saved}".replace(".", ""), llama_config(), dtype=saved)
    assert {p.dtype for p in load_network(folder, AutoModelForCausalLM).parameters()} == {torch.float32}
    made = CausalLM(folder, LoRA(rank=4), dtype="bfloat16")
    made.configure_model()
    assert {(p.requires_grad, p.dtype) for p in made.network.parameters()} == {
        (True, torch.float32),
        (False, torch.bfloat16),
    }


def test_learning_in_half_precision_warns(llama):
    made = CausalLM(llama, dtype="bfloat16")
    with pytest.warns(UserWarning, match="small updates vanish"):
        fit(made, [made.collate(ragged_items())], accumulate=1)


def test_rotary_frequencies_stay_exact_in_bf16_true(llama):
    made = objective(llama)
    exact = {n: b.clone() for n, b in made.named_buffers() if "inv_freq" in n}
    assert exact
    made.to(torch.bfloat16)
    assert {p.dtype for p in made.network.parameters()} == {torch.bfloat16}
    buffers = dict(made.named_buffers())
    assert all(torch.equal(buffers[name], buffer) for name, buffer in exact.items())


def test_a_checkpoint_with_a_missing_tensor_is_refused(llama, tmp_path):
    import shutil

    shutil.copytree(llama, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    lost = next(k for k in weights if "up_proj" in k)
    save_file(
        {k: v for k, v in weights.items() if k != lost}, tmp_path / "broken" / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=f"lack 1 tensors that LlamaForCausalLM needs, such as {lost}"):
        load_network(str(tmp_path / "broken"), AutoModelForCausalLM)


def test_a_network_that_sees_what_follows_is_refused_as_a_causal_one(make_backbone):
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=2048,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        pad_token_id=0,
    )
    made = objective(make_backbone("bert", config))
    with pytest.raises(ValueError, match="sees the tokens that follow"):
        fit(made, [made.collate(ragged_items())], accumulate=1)


@pytest.mark.parametrize("spoilt", ["model.safetensors", "config.json"])
def test_a_broken_file_of_a_backbone_is_one_clear_error(llama, tmp_path, spoilt):
    import shutil

    shutil.copytree(llama, tmp_path / "spoilt")
    (tmp_path / "spoilt" / spoilt).write_bytes((tmp_path / "spoilt" / spoilt).read_bytes()[:50])
    with pytest.raises(ValueError, match=r"cannot be (loaded|read)"):
        load_network(str(tmp_path / "spoilt"), AutoModelForCausalLM)


def test_the_token_that_was_trained_to_end_an_answer_ends_it_in_the_export_too(llama, tmp_path):
    made = objective(llama)
    made.network.generation_config.eos_token_id = 77
    made.export(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.eos_token_id == [2, 77]


def test_a_folder_without_weights_says_how_to_start_from_scratch(llama, tmp_path):
    import shutil

    shutil.copytree(llama, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ValueError, match=r"model\.from_scratch: true"):
        load_network(str(tmp_path / "bare"), AutoModelForCausalLM)
    assert load_network(str(tmp_path / "bare"), AutoModelForCausalLM, from_scratch=True).training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny-clmm", "did you mean 'tiny-clm'"),
        ("./nowhere", "there is no backbone folder"),
        ("nobody/has-this-model", "no backbone 'nobody/has-this-model'"),
    ],
)
def test_an_unknown_backbone_says_what_a_name_can_be(name, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        backbone.load_config(name)


# Modes


class Dropping(CausalLM):
    modes: list = []

    def training_step(self, batch, batch_idx):
        self.modes.append(all(m.training for m in self.network.modules()))
        return super().training_step(batch, batch_idx)


def test_dropout_is_on_while_training_also_after_a_validation(make_backbone):
    folder = make_backbone("dropout", llama_config(attention_dropout=0.5))
    made = Dropping(folder)
    items = [made.collate([item]) for item in ragged_items()]
    made.configure_model()
    made.network.eval()  # as from_pretrained gives it
    fit_with_validation(made, items)
    assert made.modes == [True] * len(items)
    with torch.no_grad():
        made.network.train()
        assert not torch.equal(made.logits(items[1]), made.logits(items[1]))


def fit_with_validation(made, batches):
    from test_loss_and_gradients import Fixed, L

    class Both(Fixed):
        def val_dataloader(self):
            return self.train_dataloader()

    L.Trainer(
        accelerator="cpu", max_epochs=1, val_check_interval=4, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=1,
    ).fit(made, datamodule=Both(batches))  # fmt: skip
