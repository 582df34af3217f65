"""What the documentation says is so: commands are understood, files are there, code runs, messages are the program's."""

import ast
import functools
import importlib
import re
import shlex
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import test_contract
import yaml
from conftest import GUIDE, ROOT
from test_configs import commands_of
from test_zoo import parameters

import lit_fm.adapt
from lit_fm import cli, zoo
from lit_fm.cards import lacks, read_card
from lit_fm.compare.verb import REPORT, asked

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
STARTS = ("python -m lit_fm", "torchrun", "sbatch")
INLINE = re.compile(r"`(python -m lit_fm [a-z][^`]+)`")
COMMANDS = [
    (page, said)
    for page, path in {**PAGES, "README": GUIDE}.items()
    for said in dict.fromkeys([*commands_of(path, *STARTS), *INLINE.findall(path.read_text())])
]
PARSED = ("fit", "validate", "test", "predict", "profile", "data", "plan", "icl")
"""Verbs that print their config in place of working."""
FUNCTIONS = {**cli.FUNCTIONS, "compare": REPORT}
SMALL = ("--data.rows=64", "--data.batch_size=4", "--trainer.max_steps=2", "--score.examples=4", "--run.tracker=none")


@pytest.fixture
def written(in_tmp, monkeypatch):
    """Write the files that a page shows; their modules can be imported."""
    known = set(sys.modules)
    monkeypatch.syspath_prepend(in_tmp)

    def write(page):
        found = dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', PAGES[page].read_text(), re.DOTALL))
        for name, text in found.items():
            path = in_tmp / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return found

    yield write
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(in_tmp)):
            del sys.modules[name]


def as_fit(words):
    """A command's options, without launcher and redirection; runs stand for their config."""
    words = [word for word, before in zip(words, ["", *words], strict=False) if ">" not in (word, before)]
    if words[0] == "sbatch":
        assert (ROOT / words[1]).is_file()
        return ["fit", *words[2:]]
    args = words[words.index("lit_fm") + 1 :]
    args = ["--config" if word == "--run" else word for word in args]
    return ["lora.yaml" if word.startswith("runs/") and args[0] in PARSED else word for word in args]


def understand(lit, monkeypatch, words):
    verb, *args = as_fit(words)
    if verb in PARSED:
        return lit(
            verb,
            *args,
            *(() if any(".help" in arg for arg in args) or "--print_config" in args else ("--print_config",)),
        )
    if verb == "completion":
        pytest.importorskip("shtab")
    if verb == "selftest":
        return lit("fit", *args[1:], "--print_config")
    if verb == "sweep":
        return lit(verb, *args, "--wandb")  # which starts nothing where nobody is logged in
    if verb == "compare" and "--config" in args:
        found = asked(args)
        Path("fit.yaml").write_text(yaml.safe_dump(found.experiment.fit))
        return lit("fit", "--config", "fit.yaml", *found.options, "--print_config")
    if verb in FUNCTIONS:
        module, name = FUNCTIONS[verb][0].split(":")
        real = getattr(importlib.import_module(f"lit_fm.{module}"), name)
        silent = functools.wraps(real)(lambda *args, **kwargs: None)
        monkeypatch.setattr(f"lit_fm.{module}.{name}", silent)
    return lit(verb, *args)


@pytest.mark.parametrize(("page", "said"), COMMANDS)
def test_a_command_is_understood(lit, written, monkeypatch, page, said):
    if page in PAGES:
        written(page)
    done = understand(lit, monkeypatch, shlex.split(said.replace("$'", "'")))
    assert done.code == 0, done.err


ONE_OF_EACH = {as_fit(shlex.split(said.replace("$'", "'")))[0]: said for _, said in COMMANDS}


@pytest.mark.parametrize("verb", ONE_OF_EACH)
def test_a_wrong_option_of_a_command_would_be_seen(lit, written, monkeypatch, verb):
    written("tutorials/my-data.md")
    words = shlex.split(ONE_OF_EACH[verb].replace("$'", "'"))
    done = understand(lit, monkeypatch, [*words, "--nonsense", "1"])
    assert done.code != 0
    assert "nonsense" in done.err


def test_what_torchrun_is_given_are_its_options():
    from torch.distributed.run import get_args_parser

    lines = [said for _, said in COMMANDS if said.startswith("torchrun")]
    assert lines
    for said in lines:
        known = get_args_parser().parse_args(shlex.split(said)[1:])
        assert (known.module, known.training_script) == (True, "lit_fm")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_named_files_are_there(page):
    text = PAGES[page].read_text()
    own = [*re.findall(r'title="([^"]+)"', text), "config.yaml"]  # of a run
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert (PAGES[page].parent / link).is_file(), link
    for name in re.findall(r"`((?:configs|lit_fm|tests|zoo|docs|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / name).exists() or name in own, name
    for name in re.findall(r"`([\w/-]+\.yaml)`", text):
        assert (ROOT / "configs" / name).is_file() or (ROOT / name).is_file() or name in own, name


def test_readme_s_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", GUIDE.read_text()) if "://" not in link]
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).is_file()]


def test_every_page_has_its_place_and_is_short():
    class Loader(yaml.SafeLoader):
        """Plain YAML."""

    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    places = re.findall(r"[\w/-]+\.md", str(config["nav"]))
    assert sorted(places) == sorted(PAGES)
    assert config["theme"]["font"] is False  # fonts would be fetched
    assert not [page for page, path in PAGES.items() if len(path.read_text().splitlines()) > 250]


def texts(path):
    """The strings of a module as they are written out, with a mark for what is put in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)


def test_each_message_of_troubleshooting_is_one_of_the_program():
    said = {text for path in (ROOT / "lit_fm").rglob("*.py") for text in texts(path)}
    quoted = re.findall(r"^> `(.+)`$", PAGES["troubleshooting.md"].read_text(), re.MULTILINE)
    assert len(quoted) > 30
    for message in quoted:
        wanted = re.compile(".*".join(map(re.escape, message.split("..."))), re.DOTALL)
        assert any(wanted.search(text) for text in said), message


def fits(lit, page):
    """Run what a page shows, at a small size."""
    for said in commands_of(PAGES[page], "python -m lit_fm"):
        args = shlex.split(said)[3:]
        done = lit(*args, *(SMALL if args[0] == "fit" else ()))
        assert done.code == 0, done.err


def test_the_objective_that_is_added_learns_the_whole_example(lit, written, make_backbone, tmp_path):
    shown = written("extend/objective.md")
    fits(lit, "extend/objective.md")
    assert "\u27e6Prescription" in lit("data", "show", "--config", "whole.yaml", "-n", "1").out
    made = vars(importlib.import_module("whole")) | vars(test_contract)
    [(name, of_family)] = eval("{" + shown["tests/test_contract.py"] + "}", made).items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(test_contract.FAMILIES, name, of_family)
        test_contract.test_every_adaptation_keeps_its_contract(make_backbone, tmp_path, "lora", name, "tiny-clm")


@pytest.mark.parametrize(("family", "name"), [("causal", "tiny-clm"), ("masked", "tiny-mlm"), ("seq2seq", "tiny-t5")])
def test_the_adaptation_that_is_added_keeps_the_contract(written, make_backbone, tmp_path, monkeypatch, family, name):
    shown = written("extend/adaptation.md")
    made = vars(importlib.import_module("shift"))
    monkeypatch.setattr(lit_fm.adapt, "Shift", made["Shift"], raising=False)
    [(strategy, make)] = eval("{" + shown["tests/test_contract.py"] + "}", made).items()
    monkeypatch.setitem(test_contract.STRATEGIES, strategy, make)
    test_contract.test_every_adaptation_keeps_its_contract(make_backbone, tmp_path, strategy, family, name)
    assert make().settings == {"role": "feed-forward output"}


def test_the_adaptation_that_is_added_runs_and_is_not_imported_by_an_export(lit, written, in_tmp):
    written("extend/adaptation.md")
    fits(lit, "extend/adaptation.md")
    done = lit("generate", "--model", "runs/lora/001", "--prompt", "hello")
    assert done.code == 1
    assert "was learnt by Shift, which lit_fm.adapt does not know" in done.err


def test_the_source_that_is_added_reads_and_is_tested_as_shown(lit, written, in_tmp):
    written("extend/data-source.md")
    with sqlite3.connect("tickets.db") as tickets:
        tickets.execute("CREATE TABLE tickets (id INTEGER, question TEXT, answer TEXT)")
        tickets.executemany(
            "INSERT INTO tickets VALUES (?, ?, ?)", [(i, f"what is {i}?", f"it is {i}") for i in range(60)]
        )
    fits(lit, "extend/data-source.md")
    test = importlib.import_module("test_database")
    test.test_rows_of_a_query_are_examples_and_splits_share_none(in_tmp / "runs")
    assert (in_tmp / "runs/lora/001/summary.json").is_file()


def test_the_entry_that_is_added_has_a_whole_card_with_the_right_number(lit, written, in_tmp, monkeypatch):
    written("extend/zoo.md")
    monkeypatch.setattr(zoo, "SHARE", in_tmp)
    card = read_card(zoo.entries()["pocket-lm"])
    assert lacks(card) == []
    assert parameters(card.folder) == card.facts["parameters"]
    assert "A small decoder to try out an idea on." in lit("zoo", "show", "pocket-lm").out
    assert "| [pocket-lm](pocket-lm/README.md) |" in lit("zoo", "readme").out


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path):
    if not all(map(find_spec, ("mkdocs", "material", "mkdocstrings"))):
        pytest.skip("the site's tools are not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert len(pages) > len(PAGES)
    assert not [
        found for page in pages for found in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:[^"]+', page)
    ]
    assert "CausalLM" in (tmp_path / "api" / "index.html").read_text()


def test_the_tour_names_eight_files_that_are_there():
    tour = GUIDE.read_text().split("## Read the code\n")[1].split("\n`make test`")[0]
    files = re.findall(r"^\d\. `(.*?)`", tour, re.MULTILINE)
    assert len(files) == 8
    assert all((ROOT / file).is_file() for file in files)
