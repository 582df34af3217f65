"""What a fit does to what the network could do before: held-out tasks and corpora, measured before, during and after."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L

from lit_fm import randomness
from lit_fm.backbone import context_length, load_config
from lit_fm.data.corpus import TextCorpus
from lit_fm.data.instruct import Instructions
from lit_fm.data.task import Task
from lit_fm.durable import write_json
from lit_fm.evaluate import perplexity
from lit_fm.evaluate.forgotten import change, unit
from lit_fm.evaluate.metrics import LIKELIHOOD
from lit_fm.evaluate.score import Score
from lit_fm.screen import console, measured

FILE = "forgetting.json"
BLOCK = 256  # tokens of a corpus that are read together, where the network takes so many
LITTLE = 0.05
"""Of a share: where less was there before, nothing can be forgotten."""


class Forgetting(L.Callback):
    """Held-out tasks and corpora measured before training, on the way, and after it, by the metrics of the score.

    Of a task, the change is that of its first metric, and below 0 where it was forgotten; of a corpus, that of the loss in
    nats per token, and above 0 where it was forgotten. The training run is the same with and without it, to the bit.

    Args:
        tasks: by name, each as in a `Mixture`; their test examples are taken.
        corpora: by name, each a source of a `TextCorpus`; their test documents are taken.
        examples: measure at most so many of each task, drawn by the data's seed.
        every: optimizer steps between two measures.
    """

    def __init__(
        self,
        tasks: dict[str, Task] | None = None,
        corpora: dict[str, str] | None = None,
        examples: int = 50,
        every: int = 100,
    ) -> None:
        if examples < 1 or every < 1:
            raise ValueError(f"forgetting.examples {examples} and forgetting.every {every} must be at least 1.")
        self.tasks, self.corpora, self.examples, self.every = tasks or {}, corpora or {}, examples, every
        if twice := set(self.tasks) & set(self.corpora):
            raise ValueError(f"forgetting: {min(twice)} is both a task and a corpus: rename one.")
        self.history: list[dict[str, Any]] = []
        """Of each measure its `step`, and by name what was found of `tasks` and `corpora`."""
        self.folder: Path | None = None
        self._data: dict[str, Any] = {}
        self._begun_at = 0

    # Before anything is learnt.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit" or not (self.tasks or self.corpora):
            return
        if not pl_module.answers_new_tasks:
            raise ValueError(
                f"forgetting: {type(pl_module).__name__} knows the classes that it is trained on and nothing else: use "
                "CausalLM, MaskedLM, SpanCorruption or Denoising."
            )
        seed = getattr(trainer.datamodule, "seed", 0)
        for name, task in self.tasks.items():
            with _told(f"forgetting.tasks.{name}"):
                self._check_cut(task, trainer.datamodule)
                self._data[name] = Instructions({name: task}, seed=seed)
                self._data[name].trainer = trainer
                self._check(name, task, pl_module)
        for name, source in self.corpora.items():
            with _told(f"forgetting.corpora.{name}"):
                self._data[name] = _corpus(source, trainer.datamodule, pl_module, seed)
                self._data[name].trainer = trainer
                self._data[name].setup("test")

    def _check_cut(self, task: Task, data: Any) -> None:
        """What is learnt from must not be what is held out."""
        for other in getattr(data, "tasks", {}).values():
            same = task.source.partition(":fields")[0] == other.source.partition(":fields")[0]
            if same and (task.files, task.shares) != (other.files, other.shares):
                raise ValueError(
                    f"the run learns from {task.source} too, but cuts other splits off it: give both the same validation, "
                    "test and shares."
                )

    def _check(self, name: str, task: Task, objective: Any) -> None:
        examples = self._data[name].examples("test")
        if any("messages" in example for example in examples) and not objective.tokenizer.chat_template:
            raise ValueError(
                f"{task.source} has conversations, and {objective.backbone} no chat template: leave it out."
            )
        if not any(right.strip() for example in examples for right in objective.answer_references(example)):
            why = f"none of {len(examples)} test rows has an answer that {type(objective).__name__} can give"
            raise ValueError(f"{why if examples else 'there are no test rows'}: give other rows, or leave it out.")

    # Measure.

    def _measure(self, trainer: Any, objective: Any, step: int) -> None:
        """Note what is found now; the network's mode and all generators are left as they are."""
        states, found = randomness.collect(), {"step": step, "tasks": {}, "corpora": {}}
        for name, data in self._data.items():
            kind = "tasks" if name in self.tasks else "corpora"
            with _told(f"forgetting.{kind}.{name}"):
                found[kind][name] = getattr(self, f"_{kind}")(name, self._seeing(trainer, data), objective)  # type: ignore[index]
        randomness.restore(states)
        self.history.append(found)
        if trainer.is_global_zero:
            values = {
                f"forgetting/{name}/{metric}": value
                for kind in ("tasks", "corpora")
                for name, measures in found[kind].items()  # type: ignore[attr-defined]
                for metric, value in measures.items()
            }
            for logger in trainer.loggers:
                logger.log_metrics(values, step)
            if self.folder:
                write_json(self.folder / FILE, {"history": self.history, "change": change(self.history)})

    def _seeing(self, trainer: Any, data: Any) -> Any:
        """What measures ask a trainer for, with other data. What they leave out is said once, at the first."""
        names = ("strategy", "precision_plugin", "global_rank", "world_size")
        found = {name: getattr(trainer, name) for name in names}
        return SimpleNamespace(**found, datamodule=data, is_global_zero=trainer.is_global_zero and not self.history)

    def _tasks(self, name: str, seen: Any, objective: Any) -> dict[str, float]:
        if seen.is_global_zero:
            console.print(f"Held-out task {name}:", end=" ")
        score = Score(examples=self.examples)
        found = score.measure(seen, objective)
        if not found:
            raise ValueError(f"all right answers are longer than {score.longest} tokens: leave it out.")
        named = seen.datamodule.metrics_of(name) or [LIKELIHOOD[0]]
        first = next((key for key in found if key.startswith(named[0])), next(iter(found)))
        return {first: found[first], **found}

    def _corpora(self, name: str, seen: Any, objective: Any) -> dict[str, float]:
        return perplexity.measure(seen, objective, "test")

    # When.

    def state_dict(self) -> dict[str, Any]:
        return {"history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = state["history"]

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._begun_at = checkpoint["global_step"]

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not self._data or self.history:  # of a run that goes on
            return
        self._measure(trainer, pl_module, self._begun_at)
        if trainer.is_global_zero:
            for name, one in change(self.history)["tasks"].items():
                if one["before"] * unit(one["metric"]) < LITTLE:
                    told = f"{one['metric'].replace('_', ' ')} {measured(one['metric'], one['before'])}"
                    console.print(f"Of the task {name} there is nothing to forget: it starts at {told}.")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        step = trainer.global_step
        if self.history and step % self.every == 0 and step > self.history[-1]["step"]:
            self._measure(trainer, pl_module, step)
            pl_module.on_validation_end()  # the clock of tokens per second stood still

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.finish(trainer, pl_module)

    def finish(self, trainer: Any, objective: Any) -> None:
        """The last measure, if it is not made yet."""
        if self.history and trainer.global_step > self.history[-1]["step"]:
            self._measure(trainer, objective, trainer.global_step)


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Errors say which setting they are of."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{key}: {error}") from error


def _corpus(source: str, data: Any, objective: Any, seed: int) -> TextCorpus:
    """Held out as the run's own corpora are, so that what it learns from is not among it."""
    context = context_length(load_config(objective.backbone))
    room = context and context - objective.block_frame - objective.adaptation.virtual_tokens
    own = {}
    if isinstance(data, TextCorpus):
        own = {name: getattr(data, name) for name in ("column", "stray_quotes", "held_out")}
    # Of smallworld's documents for training, which are not read, the least that there can be.
    return TextCorpus(source, block_size=min(BLOCK, room or BLOCK), documents=1, seed=seed, **own)
