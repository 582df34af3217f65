"""Once the README is rendered, the rest of the repository comes along, as it is, under its name. Standard library only."""

import json
import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

NAME = {{cookiecutter.package_name | pprint}}  # noqa: F821
DESCRIPTION, AUTHOR = {{cookiecutter.short_description | pprint}}, {{cookiecutter.author | pprint}}  # noqa: F821
NAMES = {b"lit_fm": NAME, b"lit-fm": NAME.replace("_", "-"), b"LIT_FM": NAME.upper()}
WORDS = re.compile(rb"(?<![A-Za-z0-9])(lit_fm|lit-fm|LIT_FM)(?![A-Za-z0-9])")
OWN = ("cookiecutter.json", "hooks/", "{", "tests/test_template.py")  # what only the template needs


def renamed(text: bytes) -> bytes:
    """The new name wherever the old one stands as a whole word; a part of a name in snake case is one."""
    return WORDS.sub(lambda found: NAMES[found[0]].encode(), text)


def git(repository: Path, *words: str) -> str | None:
    """What git says of the repository, or nothing where there is no git."""
    if not (repository / ".git").exists() or not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", repository, *words], capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def files(repository: Path) -> list[str]:
    """What git tracks; without git, as in a zip, all that .gitignore does not name."""
    tracked = git(repository, "ls-files", "-z")
    if tracked is not None:
        return [file for file in tracked.split("\0") if file and (repository / file).is_file()]
    ignored = [".git", *(repository / ".gitignore").read_text(encoding="utf-8").replace("/", "").split()]
    found = []
    for folder, folders, names in os.walk(repository):
        kept = [name for name in folders if not any(fnmatch(name, pattern) for pattern in ignored)]
        folders[:] = [name for name in kept if not Path(folder, name).samefile(".")]
        found += [Path(folder, name).relative_to(repository).as_posix() for name in names]
    return [file for file in found if not any(fnmatch(Path(file).name, pattern) for pattern in ignored)]


def adapted(file: str, text: bytes) -> bytes:
    """The text of a file of the new project."""
    if b"\0" in text:
        return text  # binary
    if file == "README.md":
        text = re.sub(rb"(?ms)^## Make it yours\n.*?(?=^## )", b"", text)
    text = renamed(text)
    if file == "pyproject.toml":
        about = "description = " + json.dumps(DESCRIPTION, ensure_ascii=False)
        about += "\nauthors = [{ name = " + json.dumps(AUTHOR, ensure_ascii=False) + " }]" if AUTHOR else ""
        text = re.sub(rb"(?m)^description = .*", lambda _: about.encode(), text, count=1)
        text = re.sub(rb' *"cookiecutter.*\n', b"", text)
    return text


handed = Path(".template")
repository = Path(handed.read_text(encoding="utf-8"))
handed.unlink()
for file in files(repository):
    if file.startswith(OWN):
        continue
    source = repository / file
    target = Path("GUIDE.md" if file == "README.md" else os.fsdecode(renamed(os.fsencode(file))))
    target.parent.mkdir(parents=True, exist_ok=True)
    text = source.read_bytes()
    target.write_bytes(adapted(file, text))
    # A zip forgets what can be run; a first line that names an interpreter does not.
    target.chmod(source.stat().st_mode | (0o111 if text.startswith(b"#!") else 0))

version = re.search(r'__version__ = "(.*)"', (repository / "lit_fm" / "__init__.py").read_text(encoding="utf-8"))[1]
commit = git(repository, "describe", "--tags", "--always", "--dirty")
readme = Path("README.md")
made_of = version + (f" ({commit.strip()})" if commit else "")
readme.write_text(readme.read_text(encoding="utf-8").replace("TEMPLATE_VERSION", made_of), encoding="utf-8")
print(f"{NAME} is made. Next: cd {Path.cwd().name}, make fit, make test.")
