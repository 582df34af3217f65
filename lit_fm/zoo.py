"""The model zoo: one folder a card, in Hugging Face's own format, and what the name of a backbone stands for."""

from pathlib import Path

from lit_fm import SHARE
from lit_fm.cards import read_card
from lit_fm.nearest import did_you_mean


def entries() -> dict[str, Path]:
    """The cards by name."""
    return {path.parent.name: path.parent for path in sorted((SHARE / "zoo").glob("*/config.json"))}


def resolve(name: str) -> str:
    """The folder of a backbone, or its Hugging Face id. A folder wins over a zoo entry, a zoo entry over an id.

    An entry without weights is its folder too: its architecture can be built; `no_weights` says what its weights are.

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
    # Other entries are named like their models: gpt2 and roberta-base, which the hub has, would pass for slips of theirs.
    with_weights = [entry for entry, path in known.items() if has_weights(path)]
    if "/" not in name and "did you mean" in (hint := did_you_mean(name, with_weights)):
        raise ValueError(f"there is no backbone {name!r} in the zoo: {hint}")
    return name


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weights of its own."""
    return any(file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a vocabulary: without one, transformers silently makes tokenizers of a single token."""
    return any(
        file
        for pattern in ("tokenizer.*", "vocab.*", "*.model", "*.spm", "tekken.json")
        for file in folder.glob(pattern)
    )


def no_weights(name: str) -> str:
    """What to say when weights or a tokenizer are asked of a folder that has none."""
    known = entries()
    if name not in known:
        return (
            f"{resolve(name)} holds no weights: set `model.from_scratch: true`, or give a folder that has some."
            if has_tokenizer(Path(resolve(name)))
            else f"the backbone {name!r} has no tokenizer ({resolve(name)}): put tokenizer.json beside it."
        )
    twin = f"`python -m lit_fm twin {name} --out FOLDER` makes a small one with a tokenizer"
    hub = read_card(known[name]).hub
    where = f"use its Hugging Face id, --model.backbone {hub}; or" if hub else "none were published;"
    return (
        f"the zoo entry {name!r} is an architecture, without weights and tokenizer: {where} {twin}, "
        "for model.from_scratch."
    )


def unknown(name: str) -> str:
    """What to say when a name is no folder, no zoo entry, and the hub does not give it."""
    return (
        f"no backbone {name!r}: it is no folder, no zoo entry ({did_you_mean(name, entries())}), and Hugging Face did not "
        "give it (no such id, no network, or a gated model: `hf auth login`)."
    )
