"""Run folders as plain records: what a fit led to, and what prompting alone did."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lit_fm.evaluate.neighbours import FILE as NEIGHBOURS

Rows = list[dict[str, Any]]
EXPORTS = ("adapter", "model")
ENDS = ("summary.json", "icl.json")
"""What a run leaves that ended."""


@dataclass(frozen=True)
class Record:
    """One run of a method, or of one number of shots: what its folder says."""

    folder: Path
    method: str
    seed: int
    backbone: str
    measured: dict[str, float]
    """Measures by name, the foremost first."""
    scored: Rows
    shots: int | None = None
    """Examples in the prompt; None where something learnt."""
    before: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    """Those that are known of `seconds`, `peak_memory_bytes`, `learnable_parameters`, `bytes`, `latency`, ..."""
    forgetting: dict[str, Any] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    neighbours: list[dict[str, Any]] = field(default_factory=list)
    """What a soft prompt's vectors were nearest to, by step."""
    config: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    """Command, code, packages, data, hardware."""


def read(names: Sequence[str]) -> list[Record]:
    """The records of run folders, of all runs in folders of runs, and of `LABEL=FOLDER`.

    Raises:
        FileNotFoundError: there is no run that ended.
        ValueError: a file of a run cannot be read, or it scored nothing.
    """
    found: list[Record] = []
    for name in names:
        label, folder = _labelled(name)
        for run in folders_of(folder):
            records = _prompting(run) if (run / "icl.json").is_file() else [_fit(run)]
            found += [replace(record, method=_relabelled(record, label)) for record in records]
    return found


def _labelled(name: str) -> tuple[str | None, Path]:
    label, equals, path = name.partition("=")
    return (label, Path(path)) if equals and not Path(name).exists() else (None, Path(name))


def _relabelled(record: Record, label: str | None) -> str:
    return record.method if label is None else label if record.shots is None else f"{label}, {record.method}"


def folders_of(folder: Path) -> list[Path]:
    """The runs in a folder that ended: itself, or all that are below it.

    Raises:
        FileNotFoundError: there is none.
    """
    if any((folder / name).is_file() for name in ENDS):
        return [folder]
    below = sorted({path.parent for name in ENDS for path in folder.glob(f"**/{name}")})
    if not below:
        said = "has not ended (it has no summary.json)" if (folder / "config.yaml").is_file() else "is no run"
        raise FileNotFoundError(f"{folder} {said}, and no run that ended is below it: name runs such as runs/lora/001.")
    return below


def left_out(names: Sequence[str]) -> list[str]:
    """What is below these folders and is not read, in words: runs that have not ended, shots without room."""
    below = {p.parent for n in names for file in ("run.json", *ENDS) for p in _labelled(n)[1].glob(f"**/{file}")}
    begun = sorted(folder for folder in below if not any((folder / name).is_file() for name in ENDS))
    told = [f"{len(begun)} runs that have not ended are left out, such as {begun[0]}."] if begun else []
    for folder in sorted(below):
        about = _json(folder / "icl.json")
        rows = [row for row in about.get("rows", ()) if not any(name in row for name in about["measured"])]
        for shots in sorted({row["shots"] for row in rows}):
            told.append(f"{shots}-shot is left out: no question had room for so many examples (see {folder}).")
    return told


def _json(path: Path) -> Any:
    """What a file holds; nothing where it is not there."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): the run was broken off, or the file was changed.") from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    for number, line in enumerate(text.split("\n"), 1):
        try:
            if line.strip():
                yield json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}, is not JSON ({error}): the run was broken off.") from error


def _scored(folder: Path) -> Rows:
    rows = list(_lines(folder / "scored.jsonl"))
    if not rows:
        raise ValueError(f"{folder} scored no answers (no scored.jsonl): run it with score.examples above 0.")
    return rows


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def slug(name: str) -> str:
    """A backbone's name as a part of a run's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")


def _backbone(config: dict[str, Any]) -> str:
    return ((config.get("model") or {}).get("init_args") or {}).get("backbone", "")


def _name(folder: Path, config: dict[str, Any]) -> tuple[str, int]:
    """Method and seed: a seed at the end of a run's name, or else the config's. The backbone's name is none of it."""
    named = (config.get("run") or {}).get("name") or (folder.parent.name if folder.name.isdigit() else folder.name)
    known = re.fullmatch(r"(.+?)[-_]seed[-_]?(\d+)", named)
    method, seed = (known[1], int(known[2])) if known else (named, int(config.get("seed_everything") or 0))
    return method.removesuffix(f"-{slug(_backbone(config))}"), seed


def _fit(folder: Path) -> Record:
    config, summary = _config(folder), _json(folder / "summary.json")
    method, seed = _name(folder, config)
    keys = {name: name.replace("/", "_") for name in summary.get("measured", [])}
    costs = ("seconds", "peak_memory_bytes", "learnable_parameters", "energy_joules", "optimizer_steps")
    numbers = {name: summary[name] for name in costs if summary.get(name) is not None}
    latency = _json(folder / "latency.json")
    for name, key in (("latency", "unmerged"), ("latency_merged", "merged")):
        numbers |= {name: latency[key]} if latency.get(key) is not None else {}
    if exports := [folder / name for name in EXPORTS if (folder / name).is_dir()]:
        numbers["bytes"] = sum(file.stat().st_size for file in exports[0].rglob("*.safetensors"))
    losses = {line["step"]: line["train/loss"] for line in _lines(folder / "metrics.jsonl") if "train/loss" in line}
    return Record(
        folder, method, seed, _backbone(config),
        {name: summary[key] for name, key in keys.items()}, _scored(folder),
        before={name: summary[f"{key}_before"] for name, key in keys.items() if f"{key}_before" in summary},
        numbers=numbers, forgetting=summary.get("forgetting") or {}, losses=sorted(losses.items()),
        neighbours=list(_lines(folder / NEIGHBOURS)), config=config, made=_json(folder / "run.json"),
    )  # fmt: skip


def _prompting(folder: Path) -> list[Record]:
    """One record for each number of shots, seed and way to choose them; none where no question had room for so many."""
    about, scored, found = _json(folder / "icl.json"), _scored(folder), []
    if not about.get("ended", True):
        raise ValueError(f"{folder} has not ended: start the same `icl` again, it goes on.")
    for row in about["rows"]:
        measured = {name: row[name] for name in about["measured"] if name in row}
        shots, seed, way = int(row["shots"]), int(row["seed"]), row["selection"]
        if not measured:
            continue
        method = (f"{shots}-shot" if shots else "zero-shot") + (f", {way}" if shots and way != "random" else "")
        own = [line for line in scored if (line["shots"], line["seed"]) == (shots, seed)]
        if not own:
            raise ValueError(f"{folder}/scored.jsonl holds no line of {method}, seed {seed}: run it again.")
        costs = ("seconds", "peak_memory_bytes", "energy_joules", "latency", "questions", "fewer_shots")
        numbers = {name: row[name] for name in costs if row.get(name) is not None}
        found.append(
            Record(
                folder, method, seed, about["settings"]["backbone"], measured, own, shots,
                numbers={"learnable_parameters": 0, "bytes": 0} | numbers, config=_config(folder),
                made=_json(folder / "run.json"),
            )
        )  # fmt: skip
    return found
