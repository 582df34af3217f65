"""The verb `icl`: how good a backbone is that learns nothing, with no, one, or a few solved examples before a question."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lit_fm import resume
from lit_fm.adapt import Full
from lit_fm.arguments import expand
from lit_fm.credentials import check_no_credentials
from lit_fm.data.instruct import Instructions
from lit_fm.data.shots import Selection, Shots
from lit_fm.data.tokens import fingerprint
from lit_fm.durable import write_json, write_lines, write_text
from lit_fm.evaluate.curve import as_csv, draw, names_of, shown, table
from lit_fm.evaluate.icl import InContext
from lit_fm.evaluate.judge import choose_examples, written
from lit_fm.provenance import provenance
from lit_fm.run import Run
from lit_fm.screen import console
from lit_fm.trainer_cli import CLI


class Asking(CLI):
    """A config as `icl` reads it: its data, its plain backbone, and how it is scored. Nothing learns."""

    def __init__(self, args: list[str], name: str) -> None:
        super().__init__("fit", args, name)
        self._ask()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        super().add_arguments_to_parser(parser)
        parser.add_argument("--shots", type=str, default="0,1,2,4,8", help="how many, with commas between")
        parser.add_argument("--seeds", type=int, default=3, help="draws of the shots and of their order")
        parser.add_argument("--selection", type=Selection, default="random", help="which training examples are shown")

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Only says on which device the network is."""
        settings = self._get(self.config_init, "trainer")
        if settings.get("devices") not in (None, "auto", 1, "1", -1, "-1") or settings.get("num_nodes", 1) > 1:
            raise ValueError(f"trainer.devices is {settings['devices']}: icl asks on one device, leave it out.")
        plain = {"devices": 1, "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        return self._instantiate_trainer({**settings, **plain, "callbacks": []}, [])

    def _run_subcommand(self, subcommand: str) -> None:
        """Questions are asked instead."""

    def _ask(self) -> None:
        objective, data, trainer = self.model, self.datamodule, cast(Any, self.trainer)
        run, score = self._get(self.config_init, "run"), self._get(self.config_init, "score")
        selection, numbers = self._get(self.config_init, "selection"), _numbers(self._get(self.config_init, "shots"))
        if (seeds := self._get(self.config_init, "seeds")) < 1:
            raise ValueError(f"--seeds is {seeds}, expected at least 1: raise it.")
        _check(objective, data, run)
        objective.adaptation = _plain(objective.adaptation)
        trainer.datamodule = data
        objective.trainer = trainer
        data.attach(objective)
        chosen = choose_examples(data, objective, score.examples, score.longest)
        if not chosen.examples:
            why = chosen.why_none(objective, score.longest) if score.examples else "score.examples is 0: raise it"
            raise ValueError(f"there is no question to ask: {why}.")
        shots = Shots(_solved(objective, data) if numbers != [0] else [], selection)
        most = max(map(shots.most, chosen.examples))
        if numbers[-1] > most:
            raise ValueError(f"--shots {numbers[-1]}: there are {most} training examples to show, ask for fewer.")
        if again := sum(map(shots.repeated, chosen.examples)):
            console.print(f"{again} questions are asked in the training split too: none is its own shot.")
        objective.configure_model()
        objective.to(trainer.strategy.root_device)
        trainer.precision_plugin.convert_module(objective.network).eval()
        asking = InContext(objective, data, chosen, shots)
        out = f", {chosen.too_long} left out: longer than {score.longest} tokens" if chosen.too_long else ""
        console.print(
            f"Asking {len(chosen.examples)} of {chosen.of} test examples{out}; room for {asking.room} tokens."
        )
        cells = [(number, seed) for number in numbers for seed in range(seeds if number else 1)]
        _measure(asking, cells, selection, Answers(run, self.resolved(), trainer))


class Answers:
    """The folder of a run of `icl`, `ROOT/NAME-icl/NNN`, which keeps what is measured as soon as it is.

    A run that was cut off goes on when it has the same settings.

    Raises:
        FileNotFoundError: it must go on, and there is none.
        ValueError: it would go on with other data.
    """

    def __init__(self, run: Run, config: str, trainer: Any) -> None:
        check_no_credentials(config)
        run.name += "-icl"
        run.folder = Path(run.root, run.name)
        old = [] if run.resume == "never" else [f for f in resume.numbered(run.folder) if _unfinished(f, config)]
        if run.resume == "required" and not old:
            raise FileNotFoundError(f"run.resume: {run.folder} has no unfinished run of icl with these settings.")
        if not old:
            run.make_folder()
            write_text(run.folder / "config.yaml", config)
        self.folder = old[0] if old else run.folder
        self._lock = resume.Lock(self.folder)
        trainer.datamodule.report = _contents(trainer.datamodule)
        if not old:
            write_json(self.folder / "run.json", provenance(trainer))
        elif json.loads((self.folder / "run.json").read_text(encoding="utf-8"))["data"] != trainer.datamodule.report:
            raise ValueError(f"{self.folder}: the data is not what it was: put it back, or set run.resume never.")
        self.rows: list[dict[str, Any]] = _read(self.folder).get("rows", [])
        self.done = {(row["shots"], row["seed"]) for row in self.rows}
        scored = self.folder / "scored.jsonl"
        lines = map(json.loads, _lines(scored))
        self.scored = [line for line in lines if (line["shots"], line["seed"]) in self.done]
        said = f"Going on with {self.folder}, which is unfinished. run.resume never starts anew." if old else ""
        console.print(said or f"Run folder: {self.folder}")

    def add(self, row: dict[str, Any], scored: list[dict[str, Any]], settings: dict[str, Any]) -> None:
        """Write down one number of shots with one seed."""
        self.rows.append(row)
        self.scored += scored
        write_lines(self.folder / "scored.jsonl", self.scored)
        self.write(settings, ended=False)

    def write(self, settings: dict[str, Any], ended: bool) -> None:
        """All rows. What is not in them by then counts for nothing."""
        write_text(self.folder / "icl.csv", as_csv(self.rows))
        found = {"settings": settings, "measured": names_of(self.rows), "rows": self.rows, "ended": ended}
        write_json(self.folder / "icl.json", found)


def _measure(asking: InContext, cells: list[tuple[int, int]], selection: Selection, answers: Answers) -> None:
    objective = asking.objective
    about = {"backbone": objective.backbone, "selection": selection, "objective": type(objective).__name__}
    about |= {"window": objective.limit, "room": asking.room, "until": asking.until}
    for number, seed in cells:
        if (number, seed) in answers.done:
            continue
        row, scored = asking.measure(number, seed)
        row = {"shots": number, "seed": seed, "selection": selection, **row}
        answers.add(row, scored, about)
        found = {name: row[name] for name in shown([row])}
        console.print(f"{number} shots{f', seed {seed}' if number else ''}: {', '.join(written(found)) or 'no room'}")
    console.print(table(answers.rows))
    _say(answers.rows, asking)
    if names_of(answers.rows):
        draw(answers.rows, f"{Path(objective.backbone).name}, {selection} shots", answers.folder / "icl.png")
    answers.write(about, ended=True)
    console.print(f"Written to {answers.folder}: {', '.join(sorted(p.name for p in answers.folder.glob('[is]c*')))}")


def _say(rows: list[dict[str, Any]], asking: InContext) -> None:
    """What a person should know of the numbers."""
    if any(row["fewer_shots"] for row in rows):
        console.print(
            "Questions with room for fewer shots are asked with as many as fit into data.max_length, or the backbone."
        )
    if asking.until:
        cut, of = (sum(row[key] for row in rows) for key in ("cut", "questions"))
        console.print(f"An answer ends at the first blank line: {cut:,} of {of:,} went on behind one.")
    if long := max(row["too_long"] for row in rows):
        console.print(f"{long} questions are longer than the room even alone, and may lose their left.")


def _numbers(said: str) -> list[int]:
    parts = [part.strip() for part in said.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"--shots {said}: expected numbers with commas between, such as 0,1,2,4.")
    return sorted({int(part) for part in parts})


def _check(objective: Any, data: Any, run: Run) -> None:
    if not isinstance(data, Instructions):
        raise ValueError(f"icl needs prompts with answers (InstructionData or Mixture), not {type(data).__name__}.")
    if not hasattr(objective, "segments"):
        raise ValueError(
            f"icl: {type(objective).__name__} answers by a head, which is random before it learns: use CausalLM, a "
            "SpanCorruption, or MaskedLM with choices."
        )
    if run.existing:
        raise ValueError("icl asks a plain backbone: give its config by --config instead of --run.")


def _plain(adaptation: Any) -> Full:
    """Nothing put in; the backbone in as many bits as was asked for."""
    plain = Full()
    plain.bits = adaptation.bits
    return plain


def _solved(objective: Any, data: Instructions) -> list[dict]:
    """The training examples that a fit would learn from, as far as they end with an answer."""
    made = data.examples("train")
    items = objective.encode(made, data.max_length)
    good = [one for one, item in zip(made, items, strict=True) if not isinstance(item, str)]
    return [one for one in good if objective.answer(one).strip()]


def _contents(data: Instructions) -> dict[str, Any]:
    """What tells the rows of each split from others, as a fit reports it."""
    return {
        f"{split}: {name}" if name else split: {"content": fingerprint([name, task.identity()], split)}
        for split in ("train", "test")
        for name, task in data.tasks.items()
        if task.has(split)
    }


def _lines(path: Path) -> list[str]:
    """Of JSON: an answer may hold other line ends than these."""
    return [line for line in path.read_text(encoding="utf-8").split("\n") if line] if path.is_file() else []


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "icl.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _unfinished(folder: Path, config: str) -> bool:
    if _read(folder).get("ended") or resume.at_work(folder):
        return False
    was = (folder / "config.yaml").read_text(encoding="utf-8")
    return "shots" in yaml.safe_load(was) and not resume.changes(was, config)


def icl(args: list[str]) -> None:
    """The verb."""
    name, rest = expand(args)
    sys.argv = [sys.argv[0], "icl", *rest]
    Asking(rest, name)
