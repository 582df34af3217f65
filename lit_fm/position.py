"""Where in its data a run is: kept with a checkpoint, and found again on another number of ranks."""

from typing import Any

from lit_fm.data.base import ObjectiveData
from lit_fm.ranks import ranks_of


def _layout(trainer: Any) -> dict[str, Any]:
    """How the rows of an optimizer step are dealt: what steps are hangs on their number, and not on how it comes about."""
    data, window = trainer.datamodule, trainer.accumulate_grad_batches
    ranks = ranks_of(trainer)[1] * window
    rows = None if data.batch_tokens else data.batch_size * ranks
    return {
        "rows": rows,
        "tokens": data.batch_tokens and [data.batch_tokens, ranks_of(trainer)[1], window],
        "window": window,
    }


def _contents(data: ObjectiveData) -> dict[str, Any]:
    return {name: part.get("content") for name, part in data.report.items() if name.split(":")[0] == "train"}


def position_of(trainer: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint must hold to find its place again.

    Training that ends amid an epoch is written down as such: the trainer would call the epoch done, and skip its rest.
    """
    loop, saved = trainer.fit_loop, checkpoint["loops"]["fit_loop"]
    epochs, batches = saved["epoch_progress"], saved["epoch_loop.batch_progress"]
    if epochs["current"]["processed"] == epochs["current"]["ready"] and not batches["is_last_batch"]:
        for count in ("total", "current"):
            epochs[count] = {**epochs[count], "processed": epochs[count]["processed"] - 1}
    if not isinstance(trainer.datamodule, ObjectiveData):
        return {}
    return {**_layout(trainer), "contents": _contents(trainer.datamodule), "length": loop.max_batches}


def take_position(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Go on where the checkpoint was, in the micro-batches of this number of ranks.

    Raises:
        ValueError: the data is not what it was, or a step has another number of rows.
    """
    was, now, data = checkpoint["position"], _layout(trainer), trainer.datamodule
    if was["contents"] != _contents(data):
        raise ValueError(
            "the training data is not what it was when the run stopped: put it back, or set run.resume never."
        )
    if any(was[key] != now[key] for key in ("rows", "tokens")):
        raise ValueError(
            f"an optimizer step of this run has {was['rows'] or was['tokens']} rows (data.batch_size x ranks x "
            f"trainer.accumulate_grad_batches), now it would have {now['rows'] or now['tokens']}: set them so that the "
            "product stays, or set run.resume never."
        )
    if was["window"] != now["window"] and isinstance(trainer.limit_train_batches, int):
        raise ValueError(
            f"trainer.limit_train_batches {trainer.limit_train_batches} counts micro-batches, of which a step had "
            f"{was['window']} and would have {now['window']}: leave it out, or set trainer.accumulate_grad_batches back."
        )
    loops = checkpoint["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]
    if batches["is_last_batch"]:
        _between_epochs(loops)
    elif was["window"] != now["window"]:
        ready = batches["current"]["ready"]
        found = ready // was["window"] * now["window"]
        for count in ("total", "current"):
            batches[count] = {name: value + found - ready for name, value in batches[count].items()}


def validate(trainer: Any) -> None:
    """Run the validation that was due where the checkpoint was written."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False  # it would begin behind the batches of the validation before
    trainer.validating = True
    loop.run()
    trainer.training = True


def begin_there(trainer: Any) -> None:
    """Training begins at the position taken: between two epochs, with a new one as if nothing had been loaded."""
    epochs = trainer.fit_loop.epoch_progress.current
    if epochs.ready == epochs.completed > 0:
        trainer.fit_loop.epoch_loop.restarting = False


def _between_epochs(loops: dict[str, Any]) -> None:
    """Let the next epoch begin. The trainer would go into the one that is over once more, and count it twice."""
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    for count in ("total", "current"):
        epochs[count] = dict.fromkeys(epochs[count], epochs[count]["ready"])
    if batches["total"]["completed"] < batches["total"]["processed"]:  # written before the step was counted
        batches["total"] = dict.fromkeys(batches["total"], batches["total"]["ready"])
        loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False
