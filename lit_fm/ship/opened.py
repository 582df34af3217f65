"""A run that ended, or was cut off, as it was: its objective with what it learnt, its data, and how it is scored."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from jsonargparse import ArgumentParser

from lit_fm.checkpoint import newest
from lit_fm.checkpoint_io import VerifiedCheckpointIO
from lit_fm.evaluate.score import Score
from lit_fm.objectives.base import Objective


def opened(run: str) -> tuple[Any, L.Trainer, Score]:
    """The objective with its newest checkpoint, a trainer that has validated it (with the data), and its score.

    Raises:
        FileNotFoundError: no run, or none with a checkpoint.
    """
    folder = Path(run)
    checkpoint = newest(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["model"]["init_args"]["liger"] = False  # the same weights, and there may be no GPU here
    for labels in folder.glob("*/labels.json"):  # the classes that the head was trained for
        config["model"]["init_args"]["labels"] = json.loads(labels.read_text(encoding="utf-8"))
    parser = ArgumentParser()
    parser.add_subclass_arguments(Objective, "model")
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    parser.add_class_arguments(Score, "score")
    made = parser.instantiate(parser.parse_object({key: config[key] for key in ("model", "data", "score")}))
    trainer = L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        devices=1,
        plugins=[VerifiedCheckpointIO()],
        limit_val_batches=1,
        precision=(config.get("trainer") or {}).get("precision"),
    )
    L.seed_everything(config.get("seed_everything") or 0, verbose=False)
    trainer.validate(made.model, datamodule=made.data, ckpt_path=str(checkpoint), weights_only=True, verbose=False)
    made.model.to(trainer.strategy.root_device).network.eval()  # it was put away after the validation
    return made.model, trainer, made.score
