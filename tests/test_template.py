"""A project made by cookiecutter: the whole repository, unrendered, under another name."""

import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("cookiecutter")
if not (ROOT / ".git").exists() or not shutil.which("git"):
    pytest.skip("the template is tried in a clone, with git", allow_module_level=True)

OWN = {"cookiecutter.json", "tests/test_template.py"}
ODD = "split_fm lit_fmx my_lit_fm lit_fm.LoRA lit-fm[dev] LIT_FM_CACHE {{ prompt }} {% if x %} {# é #}\r\n"
ODD_RENAMED = (
    "split_fm lit_fmx my_my_model my_model.LoRA my-model[dev] MY_MODEL_CACHE {{ prompt }} {% if x %} {# é #}\r\n"
)
BINARY = b"lit_fm\0lit_fm"


def run(*words, cwd, code=0, **more):
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, encoding="utf-8", check=False, **more)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def git(*words, cwd):
    return run("git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false", *words, cwd=cwd)


def tracked(folder):
    """Those that git tracks, but what only the template needs."""
    files = git("ls-files", "-z", cwd=folder).split("\0")
    return [f for f in files if f and f not in OWN and not f.startswith(("hooks/", "{{"))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("template")


@pytest.fixture(scope="module")
def template(home):
    """A repository with the files of this one as they stand here, odd ones, and some that git does not track."""
    folder = home / "lit_fm-template"
    for file in filter(None, git("ls-files", "-z", cwd=ROOT).split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
    (folder / "configs" / "lit_fm-odd.txt").write_bytes(ODD.encode())
    (folder / "configs" / "odd.bin").write_bytes(BINARY)
    git("init", "-q", cwd=folder)
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "made", cwd=folder)
    git("tag", "v1", cwd=folder)
    for ignored in (".venv/lib/secret.py", "runs/lora/001/run.json", "lit_fm/__pycache__/cli.pyc"):
        (folder / ignored).parent.mkdir(parents=True, exist_ok=True)
        (folder / ignored).write_text("lit_fm")
    return folder


def cut(home, where, out, *answers, code=0, cwd=None, name="my_model", options=()):
    """Run cookiecutter as a person would."""
    (home / "config.yaml").write_text(f"cookiecutters_dir: {home / 'clones'}\nreplay_dir: {home / 'replay'}\n")
    words = [sys.executable, "-m", "cookiecutter", "--config-file", home / "config.yaml", "--no-input", *options]
    cwd = cwd or home
    more = {"env": {**os.environ, "PWD": str(cwd)}}
    return run(*words, where, "-o", out, f"package_name={name}", *answers, cwd=cwd, code=code, **more)


@pytest.fixture(scope="module")
def project(home, template):
    said = cut(home, template, home / "out", 'author=Ada "A." é', "short_description=Reads 'charts' \\ notes.")
    assert "cd my_model" in said
    return home / "out" / "my_model"


def content(folder):
    """Every file, with whether it can be run; README but for the version, which a zip does not tell as a clone does."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path == folder / "README.md":
            data = re.sub(rb"in version .*, which", b"", data)
        found[path.relative_to(folder).as_posix()] = (data, os.access(path, os.X_OK))
    return found


def test_every_tracked_file_is_shipped_as_it_is_but_for_the_name(template, project):
    made = content(project)
    made.pop("README.md")
    expected = {}
    for file in tracked(template):
        data = (template / file).read_bytes()
        if b"\0" not in data:  # a word of the name is a word of none of our other words, but in the odd file
            data = data.replace(b"lit_fm", b"my_model").replace(b"lit-fm", b"my-model").replace(b"LIT_FM", b"MY_MODEL")
        name = "GUIDE.md" if file == "README.md" else file.replace("lit_fm", "my_model")
        expected[name] = (data, os.access(template / file, os.X_OK))
    assert made.keys() == expected.keys()
    assert made["configs/my_model-odd.txt"][0] == ODD_RENAMED.encode()
    assert made["configs/odd.bin"][0] == BINARY
    assert made[".ci/run"][1]
    of_their_own = {"configs/my_model-odd.txt", "pyproject.toml", "GUIDE.md"}
    assert {name for name in made if made[name] != expected[name]} == of_their_own


def test_jinja_of_prompts_comes_through_unrendered(project):
    with_jinja = [name for name, (data, _) in content(project).items() if b"{{" in data]
    assert {"configs/tasks.yaml", "my_model/compare/page.html.jinja", "GUIDE.md"} <= set(with_jinja)


def test_no_trace_of_the_old_name_is_left(project):
    for name, (data, _) in content(project).items():
        assert not re.search(rb"(?i)lit[_-]?fm", name.encode()), name
        if name not in {"configs/my_model-odd.txt", "configs/odd.bin"}:
            assert not re.search(rb"(?i)(?<!sp)lit[_ -]?fm", data), name


def test_what_a_person_answers_stands_in_pyproject_and_readme(project):
    import tomllib

    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert about["project"]["name"] == "my-model"
    assert about["project"]["description"] == "Reads 'charts' \\ notes."
    assert about["project"]["authors"] == [{"name": 'Ada "A." é'}]
    assert about["project"]["scripts"] == {"my-model": "my_model.cli:main"}
    assert not [extra for extra in about["project"]["optional-dependencies"]["dev"] if "cookiecutter" in extra]
    readme = (project / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# My Model\n\nReads 'charts' \\ notes, by Ada \"A.\" é.\n")
    assert re.search(r"of a template in version \d+\.\d+\.\d+ \(v1\)", readme)
    assert "cookiecutter" not in (project / "GUIDE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", ["dot", "relative", "url", "zip", "folder"])
def test_every_way_to_the_template_gives_the_same_project(home, template, project, way):
    out, answers = home / f"out-{way}", ('author=Ada "A." é', "short_description=Reads 'charts' \\ notes.")
    if way == "dot":
        cut(home, ".", out, *answers, cwd=template)
    elif way == "relative":
        cut(home, "./lit_fm-template/", out, *answers)
    elif way == "url":
        (template / "LICENSE").write_text("another one")  # the tag has the old one
        git("commit", "-q", "-a", "-m", "later", cwd=template)
        cut(home, f"git+file://{template}", out, *answers, options=["--checkout", "v1"])
        git("reset", "-q", "--hard", "v1", cwd=template)
    elif way == "zip":
        git("archive", "--format", "zip", "--prefix", "lit_fm-1/", "-o", home / "lit_fm.zip", "v1", cwd=template)
        cut(home, home / "lit_fm.zip", out, *answers)
    else:
        shutil.copytree(template, home / "no-git", ignore=shutil.ignore_patterns(".git"))
        cut(home, home / "no-git", out, *answers)
    assert content(out / "my_model") == content(project)


def test_a_project_made_within_the_template_does_not_hold_itself(home, template, project):
    for folder in (template, home / "bare"):
        if folder != template:
            shutil.copytree(template, folder, ignore=shutil.ignore_patterns(".git"))
        run_in = {"cwd": folder}
        cut(home, ".", ".", **run_in)
        assert content(folder / "my_model").keys() == content(project).keys()
        shutil.rmtree(folder / "my_model")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my model", "lower-case letters"),
        ("2fast", "lower-case letters"),
        ("My_Model", "lower-case letters"),
        ("my-model", "lower-case letters"),
        ("_mine", "lower-case letters"),
        ("modèle", "lower-case letters"),
        ('a"b', "lower-case letters"),
        ("a" * 21, "longer than 20"),
        ("lambda", "keyword"),
        ("match", "keyword"),
        ("json", "standard library"),
        ("torch", "taken by"),
        ("huggingface_hub", "taken by"),
        ("yaml", "taken by"),
        ("zoo", "taken by"),
        ("conftest", "taken by"),
        ("speed", "taken by"),
    ],
)
def test_a_name_that_would_not_work_is_refused_with_nothing_left(home, template, name, why):
    out = home / "refused"
    said = cut(home, template, out, name=name, code=1)
    assert f"The package_name {name!r}" in said
    assert why in said
    assert not list(out.iterdir())


def test_all_that_a_project_imports_is_refused_as_its_name(home, template):
    text = (template / "hooks" / "pre_gen_project.py").read_text()
    taken = set(re.search(r'TAKEN = """(.*?)"""', text, re.DOTALL)[1].split())
    pins = (template / "constraints.txt").read_text().lower()
    known = taken | {re.sub("[-.]", "_", pin) for pin in re.findall(r"(?m)^([\w.-]+)==", pins)}
    files = [*(template / "lit_fm").rglob("*.py"), *(template / "tests").glob("*.py")]
    found = set()
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.partition(".")[0])
    beside = {file.stem for folder in ("tests", "benchmarks") for file in (template / folder).glob("*.py")}
    folders = {path.name for path in template.iterdir() if path.is_dir() and path.name.isidentifier()} - {"runs"}
    assert (found | folders) - known - beside - sys.stdlib_module_names == {"lit_fm", "PIL"}  # no name has capitals


def test_a_folder_with_something_in_it_is_not_touched(home, template):
    mine = home / "forced" / "my_model"
    mine.mkdir(parents=True)
    (mine / "README.md").write_text("mine")
    (mine / "Makefile").write_text("mine")
    said = cut(home, template, home / "forced", code=1, options=["--overwrite-if-exists"])
    assert "is not empty" in said
    assert {path.name: path.read_text() for path in mine.iterdir()} == {"README.md": "mine", "Makefile": "mine"}


@pytest.mark.parametrize("name", ["q", "brief", "a_name_of_20_letters"])
def test_lint_holds_under_a_short_and_a_long_name(home, template, name):
    cut(home, template, home / "lint", name=name)
    ruff = [sys.executable, "-m", "ruff"]
    hint = "shorten these lines: the package's name may have 1 to 20 letters"
    for words in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        done = subprocess.run([*ruff, *words], cwd=home / "lint" / name, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{hint}\n{done.stdout}"


def in_project(project, *words, timeout=600):
    env = {**os.environ, "PYTHONPATH": str(project)}
    return run(sys.executable, *words, cwd=project, env=env, timeout=timeout)


def test_the_new_package_imports_and_helps(project):
    assert "my_model" in in_project(project, "-c", "import my_model; print(my_model.__name__, my_model.SHARE)")
    said = in_project(project, "-m", "my_model", "--help")
    assert "python -m my_model VERB" in said
    assert "tiny-clm" in in_project(project, "-m", "my_model", "zoo")


@pytest.mark.slow
def test_the_new_project_trains_and_passes_its_own_tests(project, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(project)}
    words = (sys.executable, "-m", "my_model", "fit", "--config", "lora.yaml", "--trainer.max_steps", "5")
    said = run(*words, cwd=tmp_path, env=env, timeout=600)
    assert "runs/lora/001" in said
    assert (tmp_path / "runs" / "lora" / "001" / "summary.json").is_file()
    run(sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "mypy", cwd=project, env=env, timeout=600)
    tests = [f"tests/test_{name}.py" for name in ("architecture", "cli", "configs", "templates", "zoo")]
    said = in_project(project, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *tests, timeout=1000)
    assert " passed" in said
    assert " failed" not in said
