"""Before a project is made: find the template, and refuse a name that would not work. Standard library only."""

import keyword
import os
import re
import sys
from pathlib import Path

NAME = {{cookiecutter.package_name | pprint}}  # noqa: F821
GIVEN, OUTPUT = {{cookiecutter._repo_dir | pprint}}, {{cookiecutter._output_dir | pprint}}  # noqa: F821
LONGEST = 20  # a line of code that holds the name still fits, see tests/test_template.py
# What is imported by another name than constraints.txt has; folders of the project; the other keys of run.json.
TAKEN = """absl attr boolean dateutil functorch google grpc lightning_fabric liger_kernel markdown_it
mpl_toolkits opentelemetry packageurl pkg_resources py pylab pynvml sklearn slugify torchgen xdist yaml
benchmarks configs docs hooks tests zoo command data git hardware packages started""".split()


def template() -> Path:
    """The repository: its path is as it was typed, and this hook works in the new folder."""
    for base in (OUTPUT, os.environ.get("PWD", "")):
        if (path := Path(base, GIVEN)).is_absolute() and (path / "lit_fm" / "__init__.py").is_file():
            return path
    sys.exit(f"The template is not found at {GIVEN}: give cookiecutter its full path.")


def refusal(repository: Path) -> str | None:
    """Why a package cannot be called so."""
    if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", NAME):
        return "is not made of lower-case letters, digits and single underscores"
    if len(NAME) > LONGEST:
        return f"is longer than {LONGEST} characters"
    if keyword.iskeyword(NAME) or keyword.issoftkeyword(NAME):
        return "is a keyword of Python"
    if NAME in sys.stdlib_module_names:
        return "is a module of Python's standard library"
    pins = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    packages = {re.sub("[-.]", "_", pin.partition("==")[0].lower()) for pin in pins}
    beside = {path.stem for folder in ("benchmarks", "tests") for path in (repository / folder).glob("*.py")}
    if NAME in packages | beside | set(TAKEN):
        return "is taken by a package that the project needs, or by a part of the project"
    return None


repository = template()
if any(Path.cwd().iterdir()):
    sys.exit(f"{Path.cwd()} is not empty: give another package_name or --output-dir.")
if why := refusal(repository):
    sys.exit(f"The package_name {NAME!r} {why}: give another one, such as my_model.")
Path(".template").write_text(str(repository), encoding="utf-8")  # for the hook that copies, which deletes it
