"""Selective fine-tuning: some of the backbone's own weights learn, and no new ones are put in.

Biases alone are BitFit (Ben Zaken et al. 2022). Gradual unfreezing and rates that fall with depth are from ULMFiT (Howard
and Ruder 2018, sections 3.2 and 3.3).
"""

import re
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_warn

from lit_fm.adapt.base import Adaptation
from lit_fm.adapt.delta import save_delta
from lit_fm.adapt.layers import ROLES, head_of, is_norm, place_of, stacks
from lit_fm.adapt.tuner import rows_of_tokens

Kind = Literal["all", "biases", "norms", "head", "attention", "embeddings", "new-tokens"]


class Selective(Adaptation):
    """The weights that one of these settings names learn; all others are frozen.

    Args:
        learn: kinds of weights. `head`: what is behind the last block; `new-tokens`: the rows of `model.new_tokens`.
        names: a regular expression that is searched in names of weights.
        last_blocks: the topmost blocks, so many of each stack.
        layer_decay: the learning rate of each block is that of the block above times this.
        unfreeze_every: at first only the head and the topmost block learn; after so many optimizer steps the next, and so
            on.

    Raises:
        ValueError: nothing is named, or a number is out of its range.
    """

    unmergeable = None
    learns_new_tokens = True
    splits = True

    def __init__(
        self,
        learn: list[Kind] | None = None,
        names: str | None = None,
        last_blocks: int = 0,
        layer_decay: float = 1.0,
        unfreeze_every: int | None = None,
    ) -> None:
        self.learn: list[Kind] = learn or []
        if not self.learn and not names and not last_blocks:
            raise ValueError("Selective: nothing is chosen to learn: say learn, names or last_blocks.")
        if last_blocks < 0 or not 0 < layer_decay <= 1 or (unfreeze_every is not None and unfreeze_every < 1):
            raise ValueError(
                f"Selective needs last_blocks >= 0, layer_decay in 0..1 and unfreeze_every >= 1, got {last_blocks}, "
                f"{layer_decay}, {unfreeze_every}: correct them."
            )
        try:
            re.compile(names or "")
        except re.error as error:
            raise ValueError(f"adaptation.names: {names!r} is no regular expression: {error}. Correct it.") from error
        self.names, self.last_blocks = names, last_blocks
        self.layer_decay, self.unfreeze_every = layer_decay, unfreeze_every

    def change(self, network: Any) -> Any:
        everything = dict(network.named_parameters())
        if self.new_tokens and not {"all", "embeddings", "new-tokens"} & set(self.learn):
            raise ValueError("model.new_tokens: their vectors are random and would stay so: add new-tokens to learn.")
        kinds = [kind for kind in self.learn if kind != "new-tokens"]
        chosen = {name for kind in kinds for name in self._of_kind(kind, network)}
        if self.names:
            found = {name for name in everything if re.search(self.names, name)}
            if not found:
                raise ValueError(
                    f"adaptation.names: {self.names!r} is in no name of a weight. They read like {list(everything)[:4]}."
                )
            chosen |= found
        high = stacks(network)
        least = min(high.values(), default=0)
        if self.last_blocks > least:
            raise ValueError(f"adaptation.last_blocks is {self.last_blocks}, but the backbone has {least}: lower it.")
        chosen |= {n for n in everything if (place := place_of(n)) and place[1] >= high[place[0]] - self.last_blocks}
        if "new-tokens" in self.learn:
            network = self._with_rows(network)
        for name, parameter in everything.items():
            parameter.requires_grad_(name in chosen or any(name.startswith(f"{module}.") for module in self.new))
        return network

    def _with_rows(self, network: Any) -> Any:
        """The rows of new tokens beside the frozen table, by peft.

        Raises:
            ValueError: there are no new tokens.
        """
        from peft import TrainableTokensConfig, get_peft_model

        if not self.new_tokens:
            raise ValueError("adaptation.learn: there are no new tokens: name them in model.new_tokens.")
        rows = rows_of_tokens(network, self.new_tokens)
        return get_peft_model(
            network, TrainableTokensConfig(token_indices=list(self.new_tokens), target_modules=list(rows))
        )

    def _of_kind(self, kind: Kind, network: Any) -> set[str]:
        """Names of the weights of a kind.

        Raises:
            ValueError: the network has none.
        """
        norms = {f"{n}.{k}" for n, m in network.named_modules() if is_norm(m) for k, _ in m.named_parameters()}
        head = head_of(network)
        embeds = {id(p) for p in network.get_input_embeddings().parameters()}
        is_of: dict[str, Any] = {
            "all": lambda name, p: True,
            "biases": lambda name, p: name.endswith("bias"),
            "norms": lambda name, p: name in norms,
            "head": lambda name, p: name in head,
            "attention": lambda name, p: ROLES["attention"].search(name),
            "embeddings": lambda name, p: id(p) in embeds,
        }
        found = {k: {n for n, p in network.named_parameters() if test(n, p)} for k, test in is_of.items() if k != "all"}
        found["all"] = {name for name, _ in network.named_parameters()}
        if not found[kind]:
            has = [name for name, names in found.items() if names]
            tied = " Its head is its embeddings: one matrix." if kind == "head" else ""
            raise ValueError(
                f"adaptation.learn: {type(network).__name__} has no {kind} of its own: choose from {has}.{tied}"
            )
        return found[kind]

    def _below(self, network: Any) -> dict[str, int]:
        """How far below the head each weight is: the topmost block of its stack 1, the embeddings last."""
        high, inputs = stacks(network), {id(p) for p in network.get_input_embeddings().parameters()}
        lowest, found = max(high.values(), default=0) + 1, {}
        for name, parameter in network.named_parameters():
            place = place_of(name)
            embeds = id(parameter) in inputs or re.search(r"embed|wte|wpe|mask_emb", name)
            found[name] = high[place[0]] - place[1] if place else lowest if embeds else 0
        return found

    def rates(self, network: Any) -> dict[str, float]:
        if self.layer_decay == 1:
            return {}
        return {name: self.layer_decay**below for name, below in self._below(network).items()}

    def begin(self, network: Any, steps: int) -> None:
        if not self.unfreeze_every:
            return
        below = [n for name, n in self._below(network).items() if network.get_parameter(name).requires_grad]
        if min(below) > 1:
            raise ValueError("adaptation.unfreeze_every: nothing of what learns is in the topmost block or the head.")
        if (max(below) - 1) * self.unfreeze_every >= steps:
            rank_zero_warn(
                f"adaptation.unfreeze_every: the lowest weights would learn after {(max(below) - 1) * self.unfreeze_every} "
                f"steps, the run has {steps}: they stay as they are."
            )

    def before_step(self, network: Any, step: int) -> None:
        """Drop the gradients of what does not learn yet: no step, no decay, no state of the optimizer."""
        if self.unfreeze_every:
            for name, below in self._below(network).items():
                if below > 1 + step // self.unfreeze_every:
                    network.get_parameter(name).grad = None

    def export(self, network: Any, folder: Path, base: str) -> None:
        save_delta(self, network, folder, base)
