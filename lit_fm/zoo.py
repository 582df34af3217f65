"""The model zoo: one folder a card, in Hugging Face's own format, and what the name of a backbone stands for."""

import json
from pathlib import Path
from typing import Literal

from lit_fm import SHARE
from lit_fm.nearest import did_you_mean


def entries() -> dict[str, Path]:
    """The cards by name."""
    return {path.parent.name: path.parent for path in sorted((SHARE / "zoo").glob("*/config.json"))}


def resolve(name: str) -> str:
    """The folder of a backbone, or its Hugging Face id. A folder wins over a zoo entry, a zoo entry over an id.

    Raises:
        ValueError: the name is a folder without `config.json`, or can be neither an entry nor an id.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise ValueError(f"{name} is a folder without config.json: a backbone is a folder in Hugging Face format.")
        return str(folder.resolve())
    known = entries()
    if name in known:
        return str(known[name])
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise FileNotFoundError(f"there is no backbone folder {name!r}: check the path.")
    if "/" not in name and "did you mean" in (hint := did_you_mean(name, known)):
        raise ValueError(f"there is no backbone {name!r} in the zoo: {hint}")
    return name


def unknown(name: str) -> str:
    """What to say when a name is no folder, no zoo entry, and the hub does not give it."""
    return (
        f"no backbone {name!r}: it is no folder, no zoo entry ({', '.join(entries())}), and Hugging Face did not give it "
        "(no such id, no network, or a gated model: `hf auth login`)."
    )


def zoo(action: Literal["list", "show"] = "list", name: str | None = None) -> None:
    """The model zoo: what is in it, or one card.

    Args:
        action: `list` the entries, or `show` the card of one.
        name: of the entry to show.

    Raises:
        ValueError: no such entry.
    """
    known = entries()
    if action == "show":
        if name is None:
            raise ValueError(f"zoo show needs the name of an entry: one of {', '.join(known)}.")
        if name not in known:
            raise ValueError(f"zoo show: there is no entry {name!r}: {did_you_mean(name, known)}")
        print(card(known[name]))
        return
    if name is not None:
        raise ValueError(f"zoo list takes no name, got {name!r}: zoo show {name} shows its card.")
    width = max(map(len, known), default=0)
    for entry, folder in known.items():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        made = (config.get("architectures") or [config["model_type"]])[0]
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        size = f"{weights / 1e6:.1f} MB of weights" if weights else "no weights here"
        print(f"{entry:<{width}}  {made:<28} {size:<20} {summary(folder)}")
    print(f"\nA folder with config.json (and README.md, weights, a tokenizer) in {SHARE / 'zoo'} is an entry.")


def card(folder: Path) -> str:
    """The card's text, without its machine-readable head."""
    path = folder / "README.md"
    if not path.is_file():
        return f"{folder.name} has no card: write {path}."
    text = path.read_text(encoding="utf-8")
    return text.split("\n---\n", 1)[1].strip() if text.startswith("---\n") and "\n---\n" in text else text.strip()


def summary(folder: Path) -> str:
    """The first paragraph under the title of a card."""
    paragraphs = [part.strip() for part in card(folder).split("\n\n")]
    found = next((part for part in paragraphs if part and not part.startswith("#")), "")
    return " ".join(found.split())
