"""What is wrong with a command line or a config, in one message instead of a parser's dump of all that it tried."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from lit_fm import _PUBLIC
from lit_fm.nearest import did_you_mean

LEAF = re.compile(
    r"Option '(?P<option>[^']+)' is not accepted"
    r"|(?P<expected>Expected an? (?!<class 'NoneType'>|dot import|path).*)"
    r"|Expected a dot import path string: (?P<name>.+)"
    r"|(?P<missing>(?:module '.*' has no attribute|No module named) .*)"
    r"|^\s+- (?P<own>(?!Expected |Problem |Does not ).+)"
)


def explain(message: str, parser: Any) -> str:
    """The innermost cause in a parser's message: which key, what came, and the nearest right name."""
    keys: list[str] = []
    owner = None
    for line in message.splitlines():
        if found := re.search(r'Parser key "([^"]+)"', line):
            keys.append(found[1])
        elif found := re.search(r"Problem with given class_path '([^']+)'", line):
            owner = found[1]
        elif found := LEAF.search(line):
            within = re.search(r"class_path='([^']+)'", line)
            owner = within[1] if within else owner
            told = re.search(r"Given value: (.+)", message)
            return _cause(".".join(keys), owner, found, parser, told[1] if told else "")
    if found := re.search(r"unrecognized arguments: --([^\s=]+)", message, re.IGNORECASE):
        return f"there is no option --{found[1]}: {did_you_mean(found[1], _options(parser))}"
    if found := re.search(r"(?:Group '([^']+)'|Subcommand '.*') does not accept option '([^']+)'", message):
        name = ".".join(part for part in found.groups() if part)
        return f"{name}: there is no such setting: {did_you_mean(name, _options(parser))}"
    if "Problems parsing config" in message:
        return f"the config is not valid YAML: {' '.join(message.split()[3:])}"
    if found := re.search(r"arguments are required: ([\w., ]+)", message):
        hint = "start from a config, such as --config lora.yaml." if "fit.model" in found[1] else "see --help."
        return f"{found[1]} must be given: {hint}"
    return message.strip()


def _cause(key: str, owner: str | None, found: re.Match, parser: Any, told: str) -> str:
    if found["own"]:  # what one of our constructors says
        return found["own"]
    if option := found["option"]:
        if not owner:
            return f"there is no key {option!r}: {did_you_mean(option, _options(parser))}"
        return f"{key}.{option}: there is no such setting: {did_you_mean(option, _settings(owner))}"
    if found["missing"] and not owner:
        return found["missing"]
    if wrong := found["name"] or (found["missing"] and owner):
        return f"{key}: there is no class {wrong!r}: {did_you_mean(wrong.rpartition('.')[2], _PUBLIC)}"
    kind = re.sub(r"<class '([^']+)'>|typing\.Literal\[(.*)\]", lambda m: m[1] or f"one of {m[2]}", found["expected"])
    expected, _, value = kind.partition(". Got value: ")
    return f"{key}: expected {re.sub('^Expected an? ', '', expected)}, got {value or told!r}. Correct it."


def _settings(path: str) -> list[str]:
    """What a class takes, by its import path; with what it hands on to the classes that it builds on."""
    module, _, name = path.rpartition(".")
    found: list[str] = []
    made = getattr(import_module(module), name)
    for owner in getattr(made, "__mro__", ()):
        if owner is not made and owner.__module__.split(".")[0] in ("torch", "lightning", "builtins"):
            continue
        parameters = inspect.signature(owner.__init__).parameters.values()
        found += [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name != "self"]
    return [*dict.fromkeys(found)]


def _options(parser: Any) -> list[str]:
    """All keys that a parser knows, those of its verb included."""
    keys = [action.dest for action in parser._actions if action.dest not in ("help", "print_shtab")]
    verbs = getattr(getattr(parser, "_subcommands_action", None), "choices", None) or {}
    return [*keys, *(key for verb in verbs.values() for key in _options(verb))]


def last_reason(log: Path) -> str:
    """What a process whose output is in a file said last: of an error, if there was one."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    errors = [line for line in lines if ": " in line and line.split(": ")[0].endswith(("error", "Error"))]
    return (errors or lines or ["it said nothing"])[-1].removeprefix("error: ")
