"""Backbones in 4 and 8 bits: small, close to the original, and merged without a loss."""

import copy
import subprocess
import sys

import lightning as L
import pytest
import torch
from conftest import ROOT, causal_configs, llama_config
from test_loss_and_gradients import Fixed, fit, objective, ragged_items
from transformers import AutoModelForCausalLM

from lit_fm import CausalLM, LoRA, SequenceClassification
from lit_fm.backbone import load_network
from lit_fm.data import smallworld
from lit_fm.optim import Schedule
from lit_fm.ship.merge import merged


def held(network):
    """Bytes of all weights, with the constants of quantised ones."""
    total = 0
    for parameter in network.parameters():
        total += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            total += part.absmax.numel() * part.absmax.element_size() if part is not None else 0
        scale = getattr(parameter, "SCB", None)
        total += scale.numel() * scale.element_size() if scale is not None else 0
    return total


@pytest.fixture(scope="session")
def proportioned(make_backbone):
    """A sixteenth of Llama-7B in width, with its share of embeddings (4 %)."""
    config = llama_config(
        vocab_size=512, hidden_size=256, intermediate_size=704, num_hidden_layers=8, num_key_value_heads=4
    )
    return make_backbone("proportioned", config)


@pytest.mark.parametrize(("bits", "most"), [(4, 0.3), (8, 0.55)])
def test_the_base_takes_a_fraction_of_its_half_precision_bytes(proportioned, bits, most):
    made = load_network(proportioned, AutoModelForCausalLM, dtype="bfloat16", bits=bits)
    whole = 2 * sum(p.numel() for p in load_network(proportioned, AutoModelForCausalLM).parameters())
    assert 0.2 * whole < held(made) < most * whole


@pytest.mark.parametrize("width", [64, 96, 160, 448])
def test_rows_of_any_width_come_back_as_they_were_quantised(make_backbone, width):
    """bitsandbytes' own CPU kernel gives back something else where 64 does not divide the width."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    folder = make_backbone(f"wide-{width}", llama_config(hidden_size=width, num_hidden_layers=1))
    plain = load_network(folder, AutoModelForCausalLM).model.layers[0].mlp.up_proj.weight.data
    weight = load_network(folder, AutoModelForCausalLM, bits=4).model.layers[0].mlp.up_proj.weight
    packed, state = quantize_4bit(
        plain.reshape(1, -1).clone(), blocksize=64, quant_type="nf4", compress_statistics=True
    )
    expected = dequantize_4bit(packed, state).reshape(plain.shape)  # one row: blocks cannot begin anew
    torch.testing.assert_close(dequantize_4bit(weight.data, weight.quant_state), expected)
    assert float((expected - plain).norm() / plain.norm()) < 0.1


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_an_evaluation_pass_changes_no_gradient(make_backbone, name):
    """On CPUs with AVX512-BF16 bitsandbytes would go over to a kernel without a backward pass, and stay there."""
    made = objective(make_backbone(name, causal_configs()[name]), LoRA(rank=4, bits=4))
    batch = made.collate(ragged_items())

    def gradients():
        made.network.zero_grad()
        made.network.train()
        made.token_losses(batch)[0].backward()
        return [p.grad.clone() for p in made.network.parameters() if p.grad is not None]

    for parameter in made.network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    before = gradients()
    made.network.eval()
    with torch.no_grad():
        made.token_losses(batch)
    assert all(torch.equal(one, other) for one, other in zip(before, gradients(), strict=True))


def test_rows_that_the_kernel_cannot_part_are_refused(make_backbone):
    with pytest.raises(ValueError, match="rows of 40 weights, and 4 bits on a CPU need a multiple of 32"):
        load_network(make_backbone("narrow", llama_config(hidden_size=40)), AutoModelForCausalLM, bits=4)


def test_four_bits_do_little_harm_to_a_trained_model():
    """0.8657 and 0.8690 nats a token on general text."""
    from lit_fm.backbone import load_tokenizer

    tokenizer = load_tokenizer("tiny-clm")
    ids = [
        torch.tensor(tokenizer(text)["input_ids"])[None, :400] for text in smallworld.documents("general", "test", 20)
    ]
    losses = []
    for bits in (None, 4):
        network = load_network("tiny-clm", AutoModelForCausalLM, bits=bits).eval()
        with torch.no_grad():
            losses.append(sum(float(network(input_ids=row, labels=row).loss) for row in ids) / len(ids))
    assert losses[1] < 1.02 * losses[0]


class Losses(L.Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, *args):
        self.seen.append(float(trainer.callback_metrics["train/loss"]))


def losses_of(bits, steps=60):
    from lit_fm.data.examples import examples

    L.seed_everything(0)
    made = CausalLM(
        "tiny-clm", LoRA(rank=8, bits=bits), lambda p: torch.optim.AdamW(p, lr=4e-3), Schedule("constant", warmup=0)
    )
    made.configure_model()
    _, found = examples(enumerate(smallworld.rows("medical-shorthand", "train", steps * 8)))
    rows = [example for _, example in found]
    items = made.encode(list(rows), 200)
    batches = [made.collate(items[start : start + 8]) for start in range(0, len(items), 8)]
    watch = Losses()
    L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=[watch], log_every_n_steps=1,
    ).fit(made, datamodule=Fixed(batches))  # fmt: skip
    return watch.seen, made


@pytest.mark.slow
def test_the_loss_of_qlora_follows_that_of_lora():
    (full, _), (small, _) = losses_of(None), losses_of(4)
    for start in range(0, 60, 20):  # means of 20 steps
        one, other = sum(full[start : start + 20]), sum(small[start : start + 20])
        assert other == pytest.approx(one, rel=0.05)


@torch.no_grad()
def logits(network):
    return network.eval()(input_ids=torch.arange(3, 60)[None]).logits


def test_what_learnt_is_folded_into_the_dequantised_weights_and_no_others(llama):
    made = objective(llama, LoRA(rank=4, bits=4))
    made.optimizer = lambda params: torch.optim.AdamW(params, lr=1e-2)
    fit(made, [made.collate(ragged_items())] * 10, accumulate=1)
    expected = logits(made.network)
    into_four_bits = logits(copy.deepcopy(made.network).merge_and_unload())
    original = objective(llama, LoRA(rank=4))
    for (_, mine), (_, learnt) in zip(
        *([(n, p) for n, p in m.network.named_parameters() if p.requires_grad] for m in (original, made)), strict=True
    ):
        mine.data.copy_(learnt.data)
    into_original = logits(original.network.merge_and_unload())
    ours = logits(merged(made))
    apart = [float((expected - other).abs().max()) for other in (into_four_bits, into_original, ours)]
    assert apart[2] < 0.01
    assert min(apart[:2]) > 10 * apart[2]


def test_a_new_head_is_not_quantised():
    made = SequenceClassification("tiny-mlm", LoRA(rank=4, bits=4), labels=["a", "b"])
    made.configure_model()
    new = [n for n, p in made.network.named_parameters() if "modules_to_save" in n]
    assert any("pooler" in n for n in new)
    assert any("classifier" in n for n in new)
    assert all(p.dtype == torch.float32 for n, p in made.network.named_parameters() if n in new)


def test_weights_in_few_bits_cannot_start_from_nothing(llama):
    with pytest.raises(ValueError, match="weights of 4 bits cannot learn"):
        load_network(llama, AutoModelForCausalLM, bits=4, from_scratch=True)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_screen_says_how_the_backbone_is_kept(llama, capsys, bits):
    from lit_fm.screen import learnable, show_learnable

    made = objective(llama, LoRA(rank=4, bits=bits))
    show_learnable(made)
    plain = objective(llama, LoRA(rank=4))
    total = sum(p.numel() for p in plain.network.parameters())
    out = " ".join(capsys.readouterr().out.split())
    assert f"The backbone is kept in {bits} bits" in out
    assert f"{learnable(plain.network)[0]:,} of {total:,} parameters" in out


def test_an_optimizer_that_keeps_its_state_in_8_bits_trains(llama):
    from bitsandbytes.optim import AdamW8bit

    losses = {}
    for kind in (torch.optim.AdamW, AdamW8bit):
        made = objective(llama)
        made.optimizer = lambda params, kind=kind: kind(params, lr=3e-3)
        items = ragged_items()
        trainer = fit(made, [made.collate(items)] * 10, accumulate=1)
        with torch.no_grad():
            total, count = made.token_losses(made.collate(items))
        losses[kind.__name__] = float(total) / count
        kept = {
            t.dtype for s in trainer.optimizers[0].state.values() for t in s.values() if isinstance(t, torch.Tensor)
        }
        assert (torch.uint8 in kept) == (kind is AdamW8bit)
    assert losses["AdamW8bit"] == pytest.approx(losses["AdamW"], rel=0.05)


def test_bitsandbytes_loads_where_something_is_quantised_and_nowhere_else(proportioned):
    """peft loads it at every import, and remembers what it found."""
    script = (
        "import sys\n"
        "from transformers import AutoModelForCausalLM\n"
        "from lit_fm.adapt import LoRA\n"
        "from lit_fm.backbone import load_network\n"
        "def layers(bits):\n"
        f"    network = load_network({str(proportioned)!r}, AutoModelForCausalLM, bits=bits)\n"
        "    network = LoRA(bits=bits).apply(network, 'CAUSAL_LM')\n"
        "    return {type(m).__name__ for m in network.modules() if hasattr(m, 'lora_A')}\n"
        "print(layers(None), 'bitsandbytes' in sys.modules, layers(4), layers(8), layers(None))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'Product'} False {'Linear4bit'} {'Linear8bitLt'} {'Product'}"
