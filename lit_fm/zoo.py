"""The model zoo: one folder a card, in Hugging Face's own format, and what the name of a backbone stands for."""

from pathlib import Path

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
