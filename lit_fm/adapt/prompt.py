"""Soft prompts: learnt vectors before the text, while the whole backbone stays frozen. Carried out by peft.

`SoftPrompt`: before the embeddings. Lester et al. 2021 (prompt tuning); Liu et al. 2021, "GPT Understands, Too" (p-tuning,
with an encoder). `Prefix`: before the keys and values of each layer. Li and Liang 2021. They are the only adaptations here
that change the output before anything is learnt.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import AutoTokenizer

from lit_fm.adapt.delta import save_delta
from lit_fm.adapt.tuner import HEADS, Tuner

Start = Literal["random", "vocabulary", "text", "labels"]
_UNSEEN = "FEATURE_EXTRACTION"  # peft's word for a network whose output is nobody's business but ours


class Virtual(Tuner):
    """Vectors that stand for tokens. A head that peft would not keep beside them is kept by us."""

    @property
    def _ours(self) -> list[str]:
        return [module for module in self.new if module.rpartition(".")[2] not in HEADS]

    def change(self, network: Any) -> Any:
        if self.task_type == "SEQ_CLS" and network.config.is_encoder_decoder:
            raise ValueError(
                f"{type(self).__name__}: {type(network).__name__} makes its decoder's input from ids, which virtual tokens "
                "do not have: use LoRA or Bottleneck."
            )
        made = super().change(network)
        for module in self._ours:
            network.get_submodule(module).requires_grad_()
        return made

    def export(self, network: Any, folder: Path, base: str) -> None:
        if self._ours:
            save_delta(self, network, folder, base)
        else:
            super().export(network, folder, base)


class SoftPrompt(Virtual):
    """Vectors in front of the embedded text; of an encoder-decoder, in front of what the encoder reads.

    Args:
        tokens: how many vectors.
        start: from `random` vectors as long as the vocabulary's, from vectors of the `vocabulary`, of a `text`, or of
            class `labels` (the mean of each, over and over).
        text: for `start: text`.
        labels: for `start: labels`.
        encoder: the vectors are made by an `mlp` or an `lstm`, which is left out after training (p-tuning).
        width: of the encoder; the backbone's where nothing is said.
        tasks: names of tasks: each gets vectors of its own, the shared ones times a matrix of low rank. Rows then say their
            `task`. Wang et al. 2023, "Multitask Prompt Tuning", equation 2.

    Raises:
        ValueError: a number is out of its range, or a setting that the others leave without meaning.
    """

    unmergeable = "a soft prompt is no change of weights: it stays in front of the text"

    def __init__(
        self,
        tokens: int = 20,
        start: Start = "vocabulary",
        text: str | None = None,
        labels: list[str] | None = None,
        encoder: Literal["none", "mlp", "lstm"] = "none",
        width: int | None = None,
        tasks: list[str] | None = None,
    ) -> None:
        if tokens < 1 or (width is not None and width < 1):
            raise ValueError(f"SoftPrompt needs tokens >= 1 and width >= 1, got {tokens} and {width}: raise them.")
        for name, given in (("text", text), ("labels", labels)):
            if bool(given) != (start == name):
                raise ValueError(f"SoftPrompt: start is {start!r}, {name} is {given!r}: give both, or neither.")
        if encoder != "none" and start != "vocabulary":
            raise ValueError(
                f"SoftPrompt: an encoder makes the vectors, so start {start!r} says nothing: leave it out."
            )
        if encoder == "none" and width:
            raise ValueError(f"SoftPrompt: width is {width}, but there is no encoder: give one, or leave it out.")
        if tasks and (encoder != "none" or len(set(tasks)) < 2):
            raise ValueError(f"SoftPrompt: tasks need two names or more and no encoder, got {tasks} and {encoder!r}.")
        self.tasks: tuple[str, ...] = tuple(tasks or ())
        self.tokens, self.start, self.text, self.labels, self.encoder = tokens, start, text, labels, encoder
        self.width, self.virtual_tokens = width, tokens

    def config(self, network: Any) -> Any:
        from peft import MultitaskPromptTuningConfig, PromptEncoderConfig, PromptTuningConfig

        if self.task_type == "SEQ_CLS" and hasattr(network, "score"):
            raise ValueError(
                f"SoftPrompt: {type(network).__name__} reads its class off the last token that is no padding, and cannot "
                "tell it behind vectors that have no ids: use Prefix or LoRA."
            )
        shared: dict[str, Any] = {
            "task_type": self.task_type or _UNSEEN,
            "num_virtual_tokens": self.tokens,
            "num_transformer_submodules": 1,
            "token_dim": network.get_input_embeddings().embedding_dim,
        }
        if self.tasks:
            if self.task_type != "CAUSAL_LM":  # peft's other networks do not take tasks, or not without labels
                raise ValueError("SoftPrompt: prompts for each task work with CausalLM alone: leave out tasks.")
            return MultitaskPromptTuningConfig(**shared, num_tasks=len(self.tasks))
        if self.encoder == "none":
            return PromptTuningConfig(**shared)
        return PromptEncoderConfig(
            **shared,
            encoder_reparameterization_type=self.encoder.upper(),
            encoder_hidden_size=self.width or shared["token_dim"],
        )

    def change(self, network: Any) -> Any:
        first = self._first(network) if self.encoder == "none" else None
        made = super().change(network)
        if first is not None:
            made.prompt_encoder["default"].embedding.weight.data.copy_(first)
        if self.tasks:  # each task starts with the shared vectors
            encoder = made.prompt_encoder["default"]
            encoder.prefix_task_cols.data.fill_(1.0)
            encoder.prefix_task_rows.data.fill_(1 / encoder.num_ranks)
        return made

    def prompt_vectors(self, network: Any) -> Tensor:
        """(tokens, width); of p-tuning, what the encoder makes; of several tasks, what they share."""
        if self.tasks:
            return network.prompt_encoder["default"].embedding.weight.detach()
        return network.get_prompt(batch_size=1)[0]

    @torch.no_grad()
    def _first(self, network: Any) -> Tensor:
        """(tokens, width) vectors to start from."""
        table = network.get_input_embeddings().weight.float()
        if self.start == "random":
            return torch.randn(self.tokens, table.shape[1]) * table.std()
        if self.start == "vocabulary":
            if self.tokens > len(table):
                raise ValueError(f"SoftPrompt: {self.tokens} tokens, but the vocabulary has {len(table)}: lower it.")
            return table[torch.randperm(len(table))[: self.tokens]]
        tokenizer = AutoTokenizer.from_pretrained(network.name_or_path)
        pieces = [self.text] if self.text else self.labels or []
        ids = [tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in pieces]
        needed = len(ids[0]) if self.text else len(ids)
        if not all(ids) or needed > self.tokens:
            raise ValueError(
                f"SoftPrompt: {self.start} {pieces} makes {needed} vectors, expected at most tokens ({self.tokens}) and "
                "none that is empty: raise tokens, or shorten it."
            )
        vectors = table[ids[0]] if self.text else torch.stack([table[label].mean(0) for label in ids])
        return vectors.repeat(-(-self.tokens // len(vectors)), 1)[: self.tokens]


class Prefix(Virtual):
    """Vectors in front of the keys and values of each layer; of an encoder-decoder, of the decoder's.

    Args:
        tokens: how many of each.
        mlp: they are made by a small network, which is left out after training; steadier at the start.
        width: of that network; the backbone's where nothing is said.

    Raises:
        ValueError: a number is out of its range.
    """

    unmergeable = "a prefix is no change of weights: it stays in front of keys and values"
    checkpoints_activations = False

    def __init__(self, tokens: int = 20, mlp: bool = False, width: int | None = None) -> None:
        if tokens < 1 or (width is not None and width < 1):
            raise ValueError(f"Prefix needs tokens >= 1 and width >= 1, got {tokens} and {width}: raise them.")
        if width and not mlp:
            raise ValueError(f"Prefix: width is {width}, but there is no mlp: set mlp, or leave width out.")
        self.tokens, self.mlp, self.width, self.virtual_tokens = tokens, mlp, width, tokens

    def config(self, network: Any) -> Any:
        from peft import PrefixTuningConfig

        if network.config.model_type == "modernbert":
            raise ValueError(f"Prefix: {type(network).__name__} takes no keys and values from outside: use SoftPrompt.")
        width = network.get_input_embeddings().embedding_dim
        return PrefixTuningConfig(
            task_type=self.task_type or _UNSEEN,
            num_virtual_tokens=self.tokens,
            prefix_projection=self.mlp,
            encoder_hidden_size=self.width or width,
        )
