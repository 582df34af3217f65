"""What every objective is: a backbone, what of it learns, and a rule from examples to a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from lit_fm import backbone as backbones
from lit_fm import checkpoint as checkpoints
from lit_fm.adapt import Adaptation, Full
from lit_fm.blocks import compile_blocks
from lit_fm.data.base import ObjectiveData
from lit_fm.data.segments import SegmentEncoder
from lit_fm.data.tokens import IGNORED, Draw, Encoded
from lit_fm.evaluate.generate import end_tokens
from lit_fm.evaluate.metrics import Names, References, Texts, measure
from lit_fm.liger import use_liger
from lit_fm.objectives.borders import check_borders
from lit_fm.objectives.loss import HeadLoss
from lit_fm.objectives.measuring import Measuring
from lit_fm.objectives.training import Batch
from lit_fm.optim import Schedule, adamw


class Objective(Measuring, ABC):
    """A backbone, what of it learns, and how; a subclass says what is asked of it.

    Args:
        backbone: a zoo entry, a Hugging Face id, or a folder.
        adaptation: what learns; all of it where nothing is said.
        optimizer: a `torch.optim.Optimizer` class and its arguments.
        from_scratch: start from random weights, with the backbone's architecture and tokenizer.
        dtype: of the backbone's weights. Below float32, small updates of weights that learn are lost to rounding.
        new_tokens: strings that become one token each, with vectors that learn.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them: slower, in less
            memory.
        compile: blocks of the network, by `torch.compile`: some minutes at first, then faster on most GPUs.
        liger: use Liger's fused kernels, on a GPU.
    """

    auto_class: Any
    task_type: str | None
    """What peft calls the objective, where it has a word for it."""
    writes = True
    """Whether the network can write text of any length."""
    answers_new_tasks = True
    """Whether it can be asked what it was not trained on."""
    block_overlap, block_frame = 0, 0
    """Tokens that blocks of running text share with their neighbours, and special tokens put round each."""

    def __init__(
        self,
        backbone: str,
        adaptation: Adaptation | None = None,
        optimizer: OptimizerCallable = adamw,
        schedule: Schedule = Schedule(),
        from_scratch: bool = False,
        dtype: backbones.Dtype = "float32",
        new_tokens: list[str] | None = None,
        activation_checkpointing: bool = False,
        compile: bool = False,
        liger: bool = False,
    ) -> None:
        super().__init__(optimizer, schedule, adaptation or Full())
        self.backbone, self.from_scratch, self.weights_dtype, self.compiled = backbone, from_scratch, dtype, compile
        self.adaptation.check(activation_checkpointing, from_scratch)
        self.activation_checkpointing, self.new_tokens, self.liger = activation_checkpointing, new_tokens or [], liger
        self._head_loss = HeadLoss()
        self.strict_loading = False  # a checkpoint holds what learns; checked in on_load_checkpoint

    # What a subclass says.

    @abstractmethod
    def encode(self, examples: list[dict], max_length: int | None) -> list[Encoded | str]:
        """Token ids and labels of each example, or the reason why it cannot be learnt from."""

    @abstractmethod
    def block(self, ids: np.ndarray, borders: bool) -> Encoded:
        """An item out of a block of running text. `borders`: documents in it must not see each other."""

    @abstractmethod
    def collate(self, items: list[Encoded], draws: list[Draw] | None = None) -> Batch:
        """A batch: what `logits` needs, `targets`, and `tokens`, the number of tokens in it that are no padding.

        Args:
            draws: names the randomness of each item in training; in evaluation, an item has its own and always the same.
        """

    def document_tail(self) -> list[int]:
        """What stands behind each document in running text."""
        return []

    def prompt_ids(self, examples: list[dict]) -> list[list[int]]:
        """What the network reads of examples before it answers, uncut."""
        raise NotImplementedError(f"{type(self).__name__} answers nothing.")

    def answers(self, examples: list[dict], max_new_tokens: int) -> list[str]:
        """What the network answers to examples."""
        raise NotImplementedError(f"{type(self).__name__} answers nothing.")

    def answer_references(self: Any, example: dict) -> list[str]:
        """All right answers to an example, each as `answers` would write it; one that is empty if there is none."""
        given = [] if "messages" in example else example.get("references") or []
        return [self.answer({**example, "completion": text}) for text in given] or [self.answer(example)]

    def measure(self, predictions: Texts, references: References, names: Names = None) -> dict[str, float]:
        """The metrics of these names, over answers and all right ones; the objective's own where none is named."""
        return measure(["exact_match"] if names is None else names, predictions, references)

    def see(self, examples: Callable[[], list[dict]]) -> None:
        """Take from the training examples what must be known before the network is built."""

    def about(self) -> str:
        """What a person should know of it before a run."""
        return ""

    @property
    def limit(self) -> int | None:
        """The longest input in tokens: what the data says, or else what the network takes."""
        data = self.trainer.datamodule if self._trainer else None  # type: ignore[attr-defined]
        context = backbones.context_length(self.network.config)
        return getattr(data, "max_length", None) or (context and context - self.adaptation.virtual_tokens)

    encoding: Any = None
    """Settings that `encode` hangs on."""

    def seen(self, item: Encoded, draw: Draw | None) -> list[tuple[str, Any, Any]]:
        """What the network reads and learns of an item, for a person: named ids, or text, and which of them are learnt."""
        learnt = item["labels"] != IGNORED if "labels" in item else np.ones(len(item["input_ids"]), bool)
        return [("", item["input_ids"], learnt)]

    # What follows from it.

    def running(self, texts: list[str]) -> np.ndarray:
        """Token ids of documents, one after the other."""
        return SegmentEncoder(self.tokenizer).running(texts, self.document_tail())

    def token_losses(self, batch: Batch) -> tuple[Tensor, int]:
        """The sum of the losses of all targets in the batch, and their number."""
        targets = batch["targets"]
        return self._head_loss(self.network, lambda: self.logits(batch), targets), len(targets)

    # Build and adapt.

    @cached_property
    def tokenizer(self) -> Any:
        made = backbones.load_tokenizer(self.backbone)
        if known := [token for token in self.new_tokens if token in made.get_vocab()]:
            raise ValueError(f"model.new_tokens: {known[0]!r} is in the vocabulary already: leave it out.")
        made.add_tokens(self.new_tokens)
        return made

    def borrow_tokenizer(self) -> None:
        """For a plan of a backbone that has none here: another's, since only shapes count."""
        try:
            self.tokenizer  # noqa: B018
        except ValueError:
            kin = {AutoModelForMaskedLM: "tiny-mlm", AutoModelForSeq2SeqLM: "tiny-t5"}.get(self.auto_class, "tiny-clm")
            self.tokenizer = backbones.load_tokenizer(kin)

    def configure_model(self) -> None:
        if self.network is not None:
            return
        if self.sharded:
            self.sharded.check(self.adaptation)
        network = self.make()
        if not any(p.requires_grad for p in network.parameters()):
            raise ValueError("nothing learns: the adaptation leaves every weight frozen. Choose other targets.")
        if self.compiled:
            compile_blocks(network)
        if self.sharded:
            self.sharded.shard(network, self.trainer.precision)
        self.network = network

    def make(self) -> Any:
        """The backbone, adapted."""
        network, new = self.build()
        if self.new_tokens:
            backbones.fit_embeddings(network, self.tokenizer)
        if self.liger:
            use_liger(network, self._loading["device"])
        if self.activation_checkpointing:
            getattr(network, "activation_checkpointing_enable", network.gradient_checkpointing_enable)()  # since 5.2x
        rows = self.tokenizer.convert_tokens_to_ids(self.new_tokens) if self.new_tokens else ()
        return self.adaptation.apply(network, self.task_type, new, rows).train()

    def build(self) -> tuple[Any, list[str]]:
        """The backbone's network, and the names of modules in it that are new: they always learn."""
        return backbones.load_network(self.backbone, self.auto_class, **self._loading), []

    @property
    def _loading(self) -> dict[str, Any]:
        device = self.trainer.strategy.root_device if self._trainer else "cpu"
        bits = {"bits": self.adaptation.bits, "device": str(device)}
        return {"dtype": self.weights_dtype, "from_scratch": self.from_scratch, **bits}

    # Evaluate.

    def check(self) -> None:
        if isinstance(self._data, ObjectiveData) and (length := self._data.bordered):
            if not self.document_tail():
                raise ValueError("data.borders: the tokenizer has no token that ends a document: leave it off.")
            check_borders(self.network, self.backbone, self.reads_all, length)

    def predict_step(self, batch: list[dict], batch_idx: int) -> list[dict]:
        texts = self.answers(batch, self._data.max_new_tokens)
        return [{**example, "prediction": text} for example, text in zip(batch, texts, strict=True)]

    # Keep what learns.

    def export(self, folder: Path) -> None:
        """Write what learnt and the tokenizer, in the format that plain `from_pretrained` reads. All ranks call this."""
        network = self.sharded.gathered(self) if self.sharded else self.network
        if self._trainer and not self.trainer.is_global_zero:
            return
        if self.writes:  # with the token that was trained to end an answer
            ends = end_tokens(network, self.tokenizer)
            network.generation_config.eos_token_id = ends if len(ends) > 1 else next(iter(ends), None)
        self.adaptation.export(network, folder, self.backbone)
        self.tokenizer.save_pretrained(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.keep_learnable(self, checkpoint)
        names = [name for group in self.grouped() for name in group]
        states = checkpoint.get("optimizer_states", [])
        checkpoint["optimizer_states"] = [checkpoints.by_name(state, names) for state in states]
        checkpoint["adaptation"] = self.adaptation.state(self.network)
        checkpoint["noise"] = self._noise

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.check_learnable(self, checkpoint)
        states = checkpoint.get("optimizer_states", [])
        checkpoint["optimizer_states"] = [checkpoints.by_number(state, self.grouped()) for state in states]
        self._noise = checkpoint.get("noise", self._noise)
        if state := checkpoint.get("adaptation"):
            self.adaptation.load_state(self.network, state)
