"""The same work in a bare PyTorch loop, with what makes it fast: `python bare.py FOLDER` (which `speed.py` makes).

No padding (examples follow each other, attention over each by itself), logits only where there is a label, W + B A in one
product, a fused optimizer. Nothing else: no logging, no checks, no checkpoints.
"""

import sys
from pathlib import Path

import torch
from stamps import stamp, tell
from torch import nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
)

RATE, LORA, MICRO = 3e-4, {"rank": 16, "alpha": 32}, 4  # as in work.py, which imports lit_fm

NETWORKS = {"llama": AutoModelForCausalLM, "bert": AutoModelForMaskedLM, "t5": AutoModelForSeq2SeqLM}


class Product(torch.autograd.Function):
    """x (W + s B A)': one large product forward, one backward; the thin ones for A and B alone."""

    @staticmethod
    def forward(ctx, x, weight, a, b, s):
        ctx.save_for_backward(x, weight, a, b)
        ctx.s = s
        return F.linear(x, torch.addmm(weight, b, a, alpha=s))

    @staticmethod
    def backward(ctx, grad):
        x, weight, a, b = ctx.saved_tensors
        flat, out = x.flatten(0, -2), grad.flatten(0, -2)
        back = grad @ torch.addmm(weight, b, a, alpha=ctx.s) if ctx.needs_input_grad[0] else None
        return back, None, (out @ b).T @ flat * ctx.s, out.T @ (flat @ a.T) * ctx.s, None


class Low(nn.Module):
    """A frozen linear layer with a low-rank update that learns."""

    def __init__(self, frozen):
        super().__init__()
        self.weight, self.s = frozen.weight.requires_grad_(False), LORA["alpha"] / LORA["rank"]
        self.a = nn.Parameter(torch.empty(LORA["rank"], frozen.in_features))
        nn.init.kaiming_uniform_(self.a, a=5**0.5)
        self.b = nn.Parameter(torch.zeros(frozen.out_features, LORA["rank"]))

    def forward(self, x):
        return Product.apply(x, self.weight, self.a, self.b, self.s)


def each_alone(module, query, key, value, mask, lengths=None, **kwargs):
    """Attention over each example of a row by itself."""
    parts = zip(*(x.split(lengths, 2) for x in (query, key, value)), strict=True)
    seen = [F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
    return torch.cat(seen, 2).transpose(1, 2), None


def adapt(network):
    """LoRA on all linear layers but the head."""
    network.requires_grad_(False)
    for owner in list(network.model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(owner, name, Low(layer))
    AttentionInterface.register("each_alone", each_alone)
    AttentionMaskInterface.register("each_alone", lambda *args, **kwargs: None)
    network.config._attn_implementation = "each_alone"


def loss_of(network, rows, kind, alone):
    """The sum of the losses of some rows, of their labelled positions only."""
    if kind == "llama":
        ids, labels = [row[0][:-1] for row in rows], [row[1][1:] for row in rows]
        more = {}
        if alone:
            sizes = [len(row) for row in ids]
            more = {"position_ids": torch.cat([torch.arange(n) for n in sizes])[None], "lengths": sizes}
            ids, labels = torch.cat(ids)[None], torch.cat(labels)[None]
        else:
            ids, labels = torch.stack(ids), torch.stack(labels)
        states = network.model(input_ids=ids, use_cache=False, **more).last_hidden_state
        head = network.lm_head
    else:
        ids, labels = (torch.stack(part) for part in zip(*rows, strict=True))
        if kind == "bert":
            states = network.bert(input_ids=ids).last_hidden_state
            head = network.cls.predictions
        else:
            shifted = F.pad(labels.clamp(min=0), (1, -1))
            read = network.encoder(input_ids=ids)
            states = network.decoder(
                input_ids=shifted, encoder_hidden_states=read.last_hidden_state, use_cache=False
            ).last_hidden_state
            head = network.lm_head
    learnt = labels != -100
    return F.cross_entropy(head(states[learnt]), labels[learnt], reduction="sum")


def main():
    """Train."""
    stamp()
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    kind = AutoConfig.from_pretrained(folder / "model").model_type
    network = NETWORKS[kind].from_pretrained(folder / "model", dtype=torch.float32).train()
    alone = folder.name == "lora"
    if alone:
        adapt(network)
    learns = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learns, lr=RATE, weight_decay=0.0, fused=True)
    batches, tokens, losses = torch.load(folder / "batches.pt"), [], []
    for batch in batches:
        rows, loss = batch["rows"], 0.0
        size = MICRO if alone else len(rows)
        targets = sum(int((labels[kind == "llama" :] != -100).sum()) for _, labels in rows)
        optimizer.zero_grad()
        for start in range(0, len(rows), size):
            part = loss_of(network, rows[start : start + size], kind, alone) / targets
            part.backward()
            loss += part.item()
        optimizer.step()
        losses.append(loss)
        tokens.append(sum(len(ids) + len(labels) * (kind == "t5") for ids, labels in batch["rows"]))
    tell(tokens, losses)


if __name__ == "__main__":
    main()
