"""LoRA: beside a frozen matrix W (out x in) learns a product of two thin ones, W + (alpha / rank) B A.

A (rank x in) starts at random, B (out x rank) at zero, so that nothing changes at the start. Hu et al. 2021,
"LoRA: Low-Rank Adaptation of Large Language Models", equation 3. Carried out by peft.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from lit_fm.adapt.base import Bits
from lit_fm.adapt.tuner import Tuner, besides, called, check_targets, rows_of_tokens

Init = Literal["zero", "pissa", "olora"]


class LoRA(Tuner):
    """Low-rank updates of linear layers; the backbone stays frozen.

    Args:
        rank: inner width of the update.
        alpha: the update is scaled by `alpha / rank`.
        dropout: on the input of the update, in training.
        targets: how names of linear layers end (`q_proj`, `layers.0.mlp.up_proj`), or `all-linear`: all but the head.
        rslora: scale by `alpha / sqrt(rank)`, which keeps high ranks learning. Kalajdzievski 2023, theorem 3.2.
        dora: learn the length of each row of W apart from its direction. Liu et al. 2024, "DoRA", equation 5.
        init: of A and B. `pissa` takes the principal singular vectors of W (Meng et al. 2024), `olora` an orthonormal basis
            (Büyükakyüz 2024); W keeps the rest. Exported as plain LoRA of twice the rank.
        plus: B learns so many times faster than A. Hayou et al. 2024, "LoRA+".
        ranks: other ranks for some of the targets.
        bits: load the backbone in 4 bits (NF4, quantised twice: QLoRA, Dettmers et al. 2023) or 8.

    Raises:
        ValueError: a number is out of its range, or two settings exclude each other.
    """

    learns_new_tokens = True

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        targets: str | list[str] = "all-linear",
        rslora: bool = False,
        dora: bool = False,
        init: Init = "zero",
        plus: float = 1.0,
        ranks: dict[str, int] | None = None,
        bits: Bits | None = None,
    ) -> None:
        if min(rank, *(ranks or {}).values(), rank) < 1 or alpha <= 0 or not 0 <= dropout < 1 or plus <= 0:
            raise ValueError(
                f"LoRA needs rank >= 1, alpha > 0, dropout in 0..1 and plus > 0, got {rank}, {alpha}, {dropout}, {plus}: "
                "correct them."
            )
        if bits not in (None, 4, 8):
            raise ValueError(f"LoRA: bits is {bits}, expected 4 or 8: correct it, or leave it out.")
        if init != "zero" and (bits or dora):
            raise ValueError(
                f"init {init} changes the backbone's weights, which {'quantised' if bits else 'DoRA'} ones do not allow: "
                f"leave out init or {'bits' if bits else 'dora'}."
            )
        self.rank, self.alpha, self.dropout, self.dora = rank, alpha, dropout, dora
        self.rslora, self.init, self.plus, self.bits = rslora, init, plus, bits
        self.targets = [targets] if isinstance(targets, str) and targets != "all-linear" else targets
        self.ranks = ranks or {}
        self.first: dict[str, Tensor] = {}  # A and B as they began, unless B A was zero: W lacks their product

    @property
    def splits(self) -> bool:  # type: ignore[override]
        return not (self.dora or self.dropout)

    def config(self, network: Any) -> Any:
        from peft import LoraConfig

        if self.init == "olora" and any(isinstance(m, Conv1D) for m in network.modules()):
            raise ValueError(f"LoRA: init olora is not made for the layers of {type(network).__name__}: use pissa.")
        check_targets(self.targets, network)
        check_targets(list(self.ranks), network, "ranks")
        named = None if isinstance(self.targets, str) else {n for t in self.targets for n in called(t, network)}
        for name in self.ranks:
            if named is not None and not named & set(called(name, network)):
                raise ValueError(f"adaptation.ranks: {name!r} is not among the targets {self.targets}: add it to them.")
        return LoraConfig(
            task_type=self.task_type,
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=True if self.init == "zero" else self.init,
            rank_pattern=self.ranks,
            trainable_token_indices=rows_of_tokens(network, self.new_tokens) if self.new_tokens else None,
            **besides(self.new),
        )

    def change(self, network: Any) -> Any:
        from lit_fm.adapt.product import compute_at_once

        made = super().change(network)
        compute_at_once(made)
        if self.init != "zero":
            self.first = {n: p.detach().cpu().clone() for n, p in made.named_parameters() if ".lora_" in n}
        return made

    def rates(self, network: Any) -> dict[str, float]:
        names = (name for name, _ in network.named_parameters() if ".lora_B." in name)
        return {} if self.plus == 1 else dict.fromkeys(names, self.plus)

    def export(self, network: Any, folder: Path, base: str) -> None:
        super().export(network, folder, base)
        if self.first:
            self._as_plain(folder)

    def _as_plain(self, folder: Path) -> None:
        """Rewrite as an update of the backbone as it is published: B A - B0 A0 is a product of twice the rank."""
        path, about = folder / "adapter_model.safetensors", json.loads((folder / "adapter_config.json").read_text())
        first = {name.replace(".default.", "."): weight for name, weight in self.first.items()}
        weights = load_file(path)
        for name in [name for name in weights if ".lora_" in name]:
            down = ".lora_A." in name
            pair = [weights[name], first[name] if down else -first[name]]
            weights[name] = torch.cat(pair, dim=0 if down else 1).contiguous()
        save_file(weights, path, {"format": "pt"})
        doubled = {"r": 2 * self.rank, "rank_pattern": {name: 2 * rank for name, rank in self.ranks.items()}}
        alpha = self.alpha * (2**0.5 if self.rslora else 2)
        about |= {**doubled, "lora_alpha": alpha, "init_lora_weights": True}
        (folder / "adapter_config.json").write_text(json.dumps(about, indent=2) + "\n")
