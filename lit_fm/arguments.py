"""Names on the command line, of configs and of runs, as the options that they stand for."""

from pathlib import Path
from typing import Any

from lit_fm import SHARE
from lit_fm.nearest import did_you_mean


def expand(args: list[str], verb: str = "") -> tuple[str, list[str]]:
    """Names of configs as paths, before all options, which overlay them; `--run DIR` as its config and newest checkpoint.

    Also the name of the first config.
    """
    configs: list[str] = []
    options: list[str] = []
    name = ""
    rest = iter(args)
    for arg in rest:
        key, equals, value = arg.partition("=")
        if key not in ("--config", "-c", "--run", "--model.adaptation"):
            options.append(arg)
            continue
        value = value if equals else next(rest, "")
        if key == "--model.adaptation":  # a class, or a file that names one with its settings
            options += [key, str(find_config(value)) if value.endswith(".yaml") else value]
            continue
        if key == "--run":
            configs += _run_arguments(Path(value), verb)
        else:
            path = find_config(value)
            name = name or path.stem
            configs += ["--config", str(path)]
    return name or "run", [*configs, *options]


def find_config(name: str) -> Path:
    """A config by path, or by its name in `configs/`.

    Raises:
        FileNotFoundError: there is none; says the nearest name.
    """
    configs = SHARE / "configs"
    for path in (Path(name), Path(f"{name}.yaml"), configs / name, configs / f"{name}.yaml"):
        if path.is_file():
            return path
    known = [path.relative_to(configs).as_posix() for path in configs.rglob("*.yaml")]
    raise FileNotFoundError(f"no config {name!r}, neither as a path nor in configs/: {did_you_mean(name, known)}")


def read_yaml(path: Path) -> Any:
    """What a config holds.

    Raises:
        ValueError: it is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def _run_arguments(folder: Path, verb: str) -> list[str]:
    from lit_fm.checkpoint import newest

    checkpoint = newest(folder)
    args = [
        "--config",
        str(folder / "config.yaml"),
        "--run.folder",
        str(folder),
    ]
    if verb == "fit":  # the run goes on, and chooses its checkpoint itself
        return args
    args += ["--ckpt_path", str(checkpoint)]
    for labels in folder.glob("*/labels.json"):  # the classes that the head was trained for, whatever the data is now
        args += ["--model.labels", labels.read_text(encoding="utf-8").strip()]
    return args
