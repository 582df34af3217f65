"""When a checkpoint is written, how many stay, and what a run does that was asked to stop."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint

from lit_fm.checkpoint import by_step
from lit_fm.position import validate
from lit_fm.screen import console
from lit_fm.signals import WISHES, Wishes, exit_code


class Keep(Checkpoint):
    """Checkpoints of a fit in a folder: at the end of each epoch, and of every so many optimizer steps.

    Args:
        every: optimizer steps; None where the epochs' ends are enough.
        number: how many of the newest stay.
        stop_after: seconds; then the run saves and exits, to be continued.
    """

    def __init__(self, every: int | None, number: int, stop_after: float | None) -> None:
        self.every, self.number = every, number
        self.folder = Path()
        self.wishes = Wishes(stop_after)
        self._saved = -1
        self._waiting = False
        self._held: dict[str, Any] | None = None
        self._due = False  # a validation, behind what is saved

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._saved = trainer.global_step if trainer.ckpt_path else -1
        self._step = trainer.global_step
        self.wishes.begin()
        pl_module.wishes = self.wishes
        if self._due:
            self._due = False
            validate(trainer)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["validation_due"] = self._due

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._due = trainer.state.fn == "fit" and checkpoint.get("validation_due", False)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self.wishes.give_back()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.wishes.give_back()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        loop = trainer.fit_loop
        self._due = bool(trainer.limit_val_batches) and loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if any(pl_module.asked):
            self._stop(trainer, pl_module.asked)
        if self._due:
            # A regular checkpoint waits for the validation's end. Weights stand still until then: this is what one asked to
            # stop in the meantime writes; what goes on from it validates first.
            self._held = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            self._due = False
        if self.every and trainer.global_step % self.every == 0 and not loop.epoch_loop.batch_progress.is_last_batch:
            self._waiting = self._held is not None
            if not self._waiting:
                self.save(trainer)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if self._held is None:
            return
        votes = pl_module.agree(self.wishes.votes())
        if any(votes):
            self._stop(trainer, votes, self._held)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._held = None
        if self._waiting:
            self._waiting = False
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.save(trainer)

    def _stop(self, trainer: Any, votes: list[float], state: dict[str, Any] | None = None) -> None:
        self.save(trainer, state)
        wish = next(name for name, vote in zip(WISHES, votes, strict=True) if vote)
        if trainer.is_global_zero:
            console.print(
                f"Stopped at optimizer step {trainer.global_step} by {wish}. The same command goes on from here."
            )
        raise SystemExit(exit_code(votes))

    def save(self, trainer: Any, state: dict[str, Any] | None = None) -> None:
        """A checkpoint of the step that was made last; of a state that was held, or of now."""
        if trainer.global_step == self._saved and state is None:
            return
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if state is None:
            trainer.save_checkpoint(path, weights_only=False)
        else:
            trainer.strategy.save_checkpoint(state, path)
            trainer.strategy.barrier("Keep.save")
        self._saved = trainer.global_step
        made = [path for step, path in by_step(self.folder).items() if step <= trainer.global_step]
        for old in made[: -self.number]:
            trainer.strategy.remove_checkpoint(old)
