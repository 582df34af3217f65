"""What a soft prompt says: the tokens of the vocabulary whose vectors point most nearly where its own do."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from rich.table import Table
from rich.text import Text
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lit_fm.blocks import rest_whole
from lit_fm.screen import console
from lit_fm.track import Guarded

FILE = "prompt_neighbours.jsonl"
NOTED, TRACKED = 10, 5  # neighbours of each virtual token in the file, and in a tracker's table
TIMES = 10
ROWS = 4096  # of the vocabulary at a time: with vectors of 4,096 numbers, 64 MiB in float32


@torch.no_grad()
def nearest(vectors: Tensor, table: Tensor, k: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """The rows of a table that point most nearly where vectors do, the nearest first.

    Args:
        vectors: (tokens, width).
        table: (vocabulary, width), of any dtype; compared in float32. A row of zeros has cosine 0 with everything.
        k: how many; the whole vocabulary where it is smaller.
        rows: so many of the table are held in float32 at a time.

    Returns:
        Their numbers and their cosines, (tokens, k) each. Of rows that are equally near, which come is not defined.
    """
    directions = normalize(vectors.float(), dim=1)
    cosines = directions.new_empty(len(vectors), 0)
    numbers = torch.empty_like(cosines, dtype=torch.long)
    for start in range(0, len(table), rows):
        part = normalize(table[start : start + rows].float(), dim=1)
        places = torch.arange(start, start + len(part), device=part.device).expand(len(vectors), -1)
        cosines = torch.cat([cosines, directions @ part.T], 1)
        cosines, kept = cosines.topk(min(k, cosines.shape[1]), dim=1)
        numbers = torch.cat([numbers, places], 1).gather(1, kept)
    return numbers, cosines


def readable(tokenizer: Any, number: int) -> str:
    """A token as people can read it: `·` for a space, `\\n` and the like for what has no shape.

    A part of a character is its piece in angle brackets; a row of the embeddings that no token belongs to, its number.
    """
    piece = tokenizer.convert_ids_to_tokens(number)
    if piece is None:
        return f"<{number}>"
    text = tokenizer.decode([number], clean_up_tokenization_spaces=False)
    if piece.startswith("▁"):  # decoding drops the space that a text begins with
        text = piece.replace("▁", " ")
    elif not text or "\N{REPLACEMENT CHARACTER}" in text:
        text = piece if piece.startswith("<") else f"<{piece}>"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace(" ", "·")


class Neighbours(L.Callback):
    """Notes the neighbours of a soft prompt's vectors when training begins, some ten times on the way, and when it ends.

    Each note is a line of `prompt_neighbours.jsonl` in the run's folder; a tracker gets them all as one table at the end.
    Adaptations without such vectors leave nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.notes: list[dict[str, Any]] = []
        self.noted = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        step, total = trainer.global_step, pl_module.total_steps
        if step < total and step * TIMES // total > (step - 1) * TIMES // total:
            self._note(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._note(trainer, pl_module)
        columns = ["step", "virtual_token", "cosine_with_start", "nearest", "cosine", "next_nearest"]
        for logger in trainer.loggers if self.notes else []:
            if isinstance(logger, Guarded):
                logger.log_rows("prompt_neighbours", columns, _rows(self.notes))

    def _note(self, trainer: Any, objective: Any) -> None:
        step = trainer.global_step
        if step == self.noted or not objective.adaptation.virtual_tokens:  # a step has several batches
            return
        self.noted = step
        with torch.no_grad(), rest_whole(objective.network):
            vectors = objective.adaptation.prompt_vectors(objective.network)
            if vectors is None or not trainer.is_global_zero:
                return
            vectors = vectors.detach().float().clone()
            if not self.notes:
                self.start = vectors
            found = nearest(vectors, objective.network.get_input_embeddings().weight.detach(), NOTED)
        moved = cosine_similarity(vectors, self.start).tolist()
        tokens = [
            {
                "cosine_with_start": round(cosine, 6),
                "nearest": [
                    {"id": number, "token": readable(objective.tokenizer, number), "cosine": round(near, 6)}
                    for number, near in zip(numbers, cosines, strict=True)
                ],
            }
            for cosine, numbers, cosines in zip(moved, *(part.tolist() for part in found), strict=True)
        ]
        self.notes.append({"step": step, "tokens": tokens})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(self.notes[-1], ensure_ascii=False) + "\n")


def _rows(notes: list[dict[str, Any]]) -> list[list[Any]]:
    """One for each virtual token at each noted step."""
    return [
        [
            note["step"],
            place,
            token["cosine_with_start"],
            token["nearest"][0]["token"],
            token["nearest"][0]["cosine"],
            "  ".join(f"{one['token']} {one['cosine']:.2f}" for one in token["nearest"][1:TRACKED]),
        ]
        for note in notes
        for place, token in enumerate(note["tokens"], 1)
    ]


def prompt_neighbours(run: str, nearest: int = 5) -> None:
    """Print what each virtual token of a soft prompt is nearest to, when training began and when it ended.

    Args:
        run: the folder of a run.
        nearest: how many tokens are shown.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: the run has noted no neighbours, or not so many.
    """
    notes = _read(Path(run))
    first, last = notes[0], notes[-1]
    most = len(first["tokens"][0]["nearest"])
    if not 1 <= nearest <= most:
        raise ValueError(f"nearest is {nearest}, expected 1 to {most}: so many were noted in the run.")
    table = Table(
        "", f"step {first['step']}", f"step {last['step']}", "cosine with start", f"of {nearest} are new",
        title="Nearest tokens of each virtual token, and their cosines",
    )  # fmt: skip
    for place, (before, after) in enumerate(zip(first["tokens"], last["tokens"], strict=True), 1):
        shown = [token["nearest"][:nearest] for token in (before, after)]
        was, is_now = ({one["id"] for one in neighbours} for neighbours in shown)
        told = [Text("\n".join(f"{one['cosine']:.2f} {one['token']}" for one in neighbours)) for neighbours in shown]
        table.add_row(str(place), *told, f"{after['cosine_with_start']:.3f}", str(len(is_now - was)))
    console.print(table)
    console.print(f"{len(notes)} steps are noted in {Path(run, FILE)}", markup=False)


def _read(run: Path) -> list[dict[str, Any]]:
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(f"{run}: there is no run (a folder with config.yaml) here. Runs are in runs/.")
    path = run / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
        adaptation = config["model"]["init_args"].get("adaptation") or {"class_path": "lit_fm.Full"}
        raise ValueError(
            f"{run} has no {FILE}: its adaptation is {adaptation['class_path'].rpartition('.')[2]}, expected a SoftPrompt, "
            "whose vectors are noted from the start: fit with --model.adaptation lit_fm.SoftPrompt."
        )
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON lines ({error}): the run was broken off while it wrote.") from error
