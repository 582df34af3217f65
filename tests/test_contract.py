"""What every adaptation promises, on every tiny backbone. A new one joins by one line of STRATEGIES."""

import copy
import re
from collections.abc import Callable

import lightning as L
import pytest
import torch
from conftest import causal_configs, masked_configs, seq2seq_configs
from test_loss_and_gradients import Fixed

from lit_fm import (
    IA3,
    AdaLoRA,
    Bottleneck,
    CausalLM,
    Full,
    LoRA,
    MaskedLM,
    Peft,
    Prefix,
    Selective,
    SequenceClassification,
    SoftPrompt,
    SpanCorruption,
    TokenClassification,
)
from lit_fm.adapted import put_in
from lit_fm.backbone import load_network
from lit_fm.optim import Schedule
from lit_fm.screen import learnable
from lit_fm.ship.merge import dequantised, merged

STRATEGIES: dict[str, Callable] = {
    "full": lambda: Full(),
    "biases": lambda: Selective(["biases"]),
    "norms": lambda: Selective(["norms"]),
    "attention": lambda: Selective(["attention"]),
    "last-block": lambda: Selective(last_blocks=1),
    "by-name": lambda: Selective(names=r"\.1\."),
    "layer-decay": lambda: Selective(["all"], layer_decay=0.5),
    "lora": lambda: LoRA(rank=4),
    "rslora": lambda: LoRA(rank=4, rslora=True),
    "dora": lambda: LoRA(rank=4, dora=True),
    "pissa": lambda: LoRA(rank=4, init="pissa"),
    "olora": lambda: LoRA(rank=4, init="olora"),
    "lora-plus": lambda: LoRA(rank=4, plus=8.0),
    "qlora": lambda: LoRA(rank=4, bits=4),
    "lora-8bit": lambda: LoRA(rank=4, bits=8),
    "adalora": lambda: AdaLoRA(rank=3, first_rank=4, every=1),
    "houlsby": lambda: Bottleneck(width=4),
    "pfeiffer": lambda: Bottleneck(width=4, placement="pfeiffer", norms=True),
    "prompt": lambda: SoftPrompt(tokens=5),
    "p-tuning": lambda: SoftPrompt(tokens=5, encoder="mlp", width=8),
    "p-tuning-lstm": lambda: SoftPrompt(tokens=5, encoder="lstm", width=8),
    "multitask": lambda: SoftPrompt(tokens=5, tasks=["colour", "other"]),
    "prefix": lambda: Prefix(tokens=5),
    "prefix-mlp": lambda: Prefix(tokens=5, mlp=True, width=8),
    "ia3": lambda: IA3(),
    "loha": lambda: Peft({"peft_type": "LOHA", "r": 4, "target_modules": "all-linear"}),
}
CHANGE_THE_OUTPUT = {"prompt", "p-tuning", "p-tuning-lstm", "multitask", "prefix", "prefix-mlp"}
FAMILIES = {
    "causal": (CausalLM, causal_configs, "tiny-clm"),
    "masked": (MaskedLM, masked_configs, "tiny-mlm"),
    "seq2seq": (SpanCorruption, seq2seq_configs, "tiny-t5"),
}
BACKBONES = [(family, name) for family, (_, configs, zoo) in FAMILIES.items() for name in (zoo, *configs())]
HEADS = [("classify", name) for name in ("llama", "gpt2", "bert", "tiny-mlm", "t5")] + [
    ("tag", "bert"),
    ("tag", "llama"),
]
# What cannot work, and the reason that is given.
REFUSED = {
    ("biases", "causal-(llama|qwen3|tiny-clm)|seq2seq-.*t5.*|classify-llama"): "has no biases of its own: choose from",
    ("olora", "(causal|classify)-gpt2"): "init olora is not made for the layers of GPT2",
    ("loha", "(causal|classify)-gpt2"): "LOHA does not work on GPT2",
    ("prompt|p-tuning.*|prefix.*|multitask", "classify-t5"): "makes its decoder's input from ids",
    ("multitask", "(masked|seq2seq|tag)-.*|classify-(bert|tiny-mlm)"): "work with CausalLM alone",
    ("prompt|p-tuning.*|multitask", "classify-(llama|gpt2)"): "reads its class off the last token",
    ("prefix.*", "masked-modernbert"): "takes no keys and values from outside",
}
ROWS = [
    {"prompt": f"word {'one ' * n}is", "completion": answer, "choices": ["red", "blue"], "tokens": ["a", "red", "b"],
     "tags": ["O", tag, "O"]}
    for n, answer, tag in ((1, "red", "X"), (7, "blue", "O"), (3, "red", "X"), (12, "blue", "X"))
]  # fmt: skip


def refusal(strategy, family, name):
    return next(
        (
            why
            for (s, names), why in REFUSED.items()
            if re.fullmatch(s, strategy) and re.fullmatch(names, f"{family}-{name}")
        ),
        None,
    )


def made_of(make_backbone, family, name, adaptation, lr=1e-2):
    L.seed_everything(7)
    if family in FAMILIES:
        kind, configs, zoo = FAMILIES[family]
    else:
        kind = SequenceClassification if family == "classify" else TokenClassification
        every = [(configs(), zoo) for _, configs, zoo in FAMILIES.values()]
        configs, zoo = next(((lambda c=c: c), zoo) for c, zoo in every if name in c or name == zoo)
    folder = name if name == zoo else make_backbone(name, configs()[name], tokenizer=zoo)
    more = {"labels": ["blue", "red"] if family == "classify" else ["O", "X"]} if family not in FAMILIES else {}
    made = kind(folder, adaptation, lambda p: torch.optim.AdamW(p, lr=lr), Schedule("constant", warmup=0), **more)
    L.seed_everything(7)
    made.configure_model()
    return made


def batch_of(made):
    batch = made.collate(made.encode(ROWS, 64))
    tasks = {"task_ids": torch.tensor([0, 1, 0, 1])} if made.adaptation.tasks else {}
    return {**batch, **tasks}


@torch.no_grad()
def logits(made):
    made.network.eval()
    return made.logits(batch_of(made))


def trained(made, steps=3):
    """After a validation pass, and so many steps."""
    batches = [batch_of(made)] * steps
    data = Fixed(batches)
    data.val_dataloader = data.train_dataloader
    L.Trainer(
        accelerator="cpu", max_epochs=1, val_check_interval=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=1, use_distributed_sampler=False,
    ).fit(made, datamodule=data)  # fmt: skip


def close(one, other, tolerance=1e-4):
    """As shares of the largest logit."""
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(1.0, float(other.abs().max())))


@pytest.mark.parametrize(("family", "name"), [*BACKBONES, *HEADS], ids=lambda part: part)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_adaptation_keeps_its_contract(make_backbone, tmp_path, strategy, family, name):
    adaptation = STRATEGIES[strategy]()
    if why := refusal(strategy, family, name):
        with pytest.raises(ValueError, match=why):
            made_of(make_backbone, family, name, adaptation)
        return
    made = made_of(make_backbone, family, name, adaptation)

    # The output is as it was.
    if strategy not in CHANGE_THE_OUTPUT and family in FAMILIES:
        folder = made.backbone
        plain = copy.copy(made)
        plain._modules = dict(made._modules)
        plain.network = load_network(folder, made.auto_class, bits=adaptation.bits)
        before, now = logits(plain), logits(made)
        if strategy in ("pissa", "olora"):  # a part of each matrix has moved into the update
            close(before, now, 1e-3)
        else:
            assert torch.equal(before, now)

    # All that should learn has moved, and nothing else; and that is what the screen says.
    start = {n: p.detach().clone() for n, p in made.network.named_parameters()}
    count, tensors = learnable(made.network)
    trained(made)
    moved = {n for n, p in made.network.named_parameters() if not torch.equal(start[n], p)}
    learns = {n for n, p in made.network.named_parameters() if p.requires_grad}
    # A key's bias shifts all scores of a query alike: its gradient is nothing but rounding.
    still = {n for n in learns - moved if not re.search(r"(k_proj|key)\.bias", n)}
    if strategy == "adalora":  # pruned whole, and so back at nothing
        still = {n for n in still if "lora_E" not in n or made.network.get_parameter(n).any()}
    assert not still
    assert not moved - learns
    assert (tensors, count) == (len(learns), sum(start[n].numel() for n in learns))

    # A checkpoint and the export give the same logits.
    expected = logits(made)
    checkpoint = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    assert len(checkpoint["state_dict"]) == len(learns)
    again = made_of(make_backbone, family, name, STRATEGIES[strategy]())
    again.on_load_checkpoint(checkpoint)
    again.load_state_dict(checkpoint["state_dict"], strict=False)
    close(logits(again), expected, 1e-5)
    made.export(tmp_path / "out")
    again = made_of(make_backbone, family, name, Full()) if not adaptation.bits else again
    again.adaptation = adaptation
    if adaptation.exports_as == "model":
        again.network = made.auto_class.from_pretrained(tmp_path / "out")
    elif not adaptation.bits:
        again.network = put_in(again.network, tmp_path / "out")
    close(logits(again), expected)

    # Merged is as unmerged, or it says that it is not possible.
    if adaptation.unmergeable:
        with pytest.raises(ValueError, match="cannot be merged"):
            merged(made)
    else:
        if adaptation.bits == 8:  # it rounds what goes through the layers too: compare with what its weights say
            made.network = dequantised(made)
            expected = logits(made)
        again.network = merged(made)
        close(logits(again), expected)
        assert not [n for n, _ in again.network.named_parameters() if "lora" in n or "ia3" in n]
