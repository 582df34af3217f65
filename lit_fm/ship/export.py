"""An adapter or model to publish: what a run exported, with a card that says what it is."""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lit_fm import zoo
from lit_fm.adapt.delta import CONFIG
from lit_fm.screen import console

TASKS = {
    "CausalLM": "text-generation",
    "MaskedLM": "fill-mask",
    "SpanCorruption": "text-generation",
    "Denoising": "text-generation",
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
}
"""What the Hub calls the task of an objective."""


def export(run: str, out: str) -> None:
    """Write what a run learnt, in peft's (or transformers') own format, with a model card.

    Args:
        run: the run's folder.
        out: a new folder.

    Raises:
        FileExistsError: `out` is there already.
        FileNotFoundError: there is no run, or it did not end.
    """
    target, folder = free_folder(out), Path(run)
    found = [part for part in (folder / "adapter", folder / "model") if part.is_dir()]
    if not found:
        raise FileNotFoundError(f"{run} has no adapter/ or model/: it is no run, or did not end. Name one that did.")
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as aside:
        draft = Path(aside, target.name)
        shutil.copytree(found[0], draft)
        if (config := draft / CONFIG).is_file():  # this machine's folder of a zoo entry means nothing elsewhere
            about = json.loads(config.read_text(encoding="utf-8"))
            about["base_model_name_or_path"] = _config(folder)["model"]["init_args"]["backbone"]
            config.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        write_card(folder, draft)
        draft.rename(target)
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    console.print(f"{size / 1e6:.2f} MB of weights, a tokenizer and a card: {target}")


def free_folder(out: str) -> Path:
    """A folder that can be made.

    Raises:
        FileExistsError: it is there already.
    """
    target = Path(out)
    if target.exists():
        raise FileExistsError(f"--out {out} is there already, and nothing is overwritten: name another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _config(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def licence(backbone: str) -> str:
    """What the card of a backbone says of its licence; `other` where there is no card."""
    card = Path(zoo.resolve(backbone)) / "README.md"
    head = card.read_text(encoding="utf-8").split("\n---\n", 1)[0] if card.is_file() else ""
    found = yaml.safe_load(head.removeprefix("---\n")) if head.startswith("---\n") else None
    return str((found or {}).get("license", "other"))


def _for_the_hub(run: Path, objective: str, summary: dict[str, Any]) -> dict[str, Any]:
    """What the Hub searches by: the task, the data set, and what was measured on it."""
    data = (_config(run).get("data") or {}).get("init_args") or {}
    task, source = TASKS.get(objective), str(data.get("source") or "a mixture")
    found = [
        {"type": name, "name": name, "value": summary[name]} for name in summary.get("measured", []) if name in summary
    ]
    if not task or not found:
        return {"pipeline_tag": task} if task else {}
    of = {"name": source, "type": source.split(":")[0], "split": "test"}
    result = {"task": {"type": task}, "dataset": of, "metrics": found}
    return {"pipeline_tag": task, "model-index": [{"name": run.parent.name, "results": [result]}]}


def write_card(run: Path, folder: Path, merge: dict[str, Any] | None = None) -> None:
    """A `README.md` in the form of Hugging Face's model cards: base, data, measures, versions, licence.

    Args:
        merge: how a merged model compares with the adapted one.
    """
    made, summary, model = _read(run / "run.json"), _read(run / "summary.json"), _config(run)["model"]
    settings = model["init_args"]
    backbone, adapted = settings["backbone"], settings.get("adaptation") or {"class_path": "lit_fm.Full"}
    library = "transformers"
    if (folder / CONFIG).is_file():
        library = "lit_fm" if "lit_fm_adaptation" in _read(folder / CONFIG) else "peft"
    head = {
        "base_model": backbone,
        "library_name": library,
        "license": licence(backbone),
        "tags": ["lit_fm", adapted["class_path"].rpartition(".")[2]],
        **_for_the_hub(run, model["class_path"].rpartition(".")[2], summary),
    }
    data = [
        f"| {split} | {about.get('examples', '')} | {about.get('content', '')} |"
        for split, about in made.get("data", {}).items()
    ]
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    written = {key: f"{value:,}" if isinstance(value, int) else f"{value:.6g}" for key, value in numbers.items()}
    measures = [f"| {key} | {value} |" for key, value in written.items()]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {run.parent.name} on {backbone}",
        f"{model['class_path'].rpartition('.')[2]} with {head['tags'][1]}, by lit_fm {made.get('lit_fm', '')}.",
        "## Data\n\n| split | examples | fingerprint |\n|---|---|---|\n" + "\n".join(data),
        "## Measured\n\n| what | value |\n|---|---|\n" + "\n".join(measures),
        f"## Settings\n\n```yaml\n{yaml.safe_dump({'adaptation': adapted}, sort_keys=False)}```",
        "| package | version |\n|---|---|\n"
        + "\n".join(f"| {name} | {version} |" for name, version in made.get("packages", {}).items()),
    ]
    if merge:
        parts.insert(4, f"## Merged\n\n```json\n{json.dumps(merge, indent=2)}\n```")
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
