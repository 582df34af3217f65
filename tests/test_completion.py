"""The schema takes the configs that are shipped and refuses slips; the script for shells completes options."""

import copy
import json
import os
import shutil
import subprocess

import jsonargparse
import pytest
from conftest import ROOT, command

import lit_fm
from lit_fm.explain import explain

jsonschema = pytest.importorskip("jsonschema")
load = jsonargparse.get_loader("yaml")  # which takes 4e-3 for a number, as editors do
CONFIGS = ROOT / "configs"
OF_OTHER_VERBS = {"compare.yaml", "compare-t5.yaml", "sweep.yaml", "kubernetes.yaml"}
OF_FIT = [p for p in sorted(CONFIGS.rglob("*.yaml")) if p.name not in OF_OTHER_VERBS and p.parent.name != "adapt"]
LORA = load((CONFIGS / "lora.yaml").read_text())


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    done = command("schema", cwd=tmp_path_factory.mktemp("schema"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wrong(schema, config):
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(config)]


def test_every_shipped_run_and_overlay_is_valid(schema):
    assert len(OF_FIT) > 30
    for path in OF_FIT:
        assert wrong(schema, load(path.read_text())) == [], path.name


def test_every_shipped_adaptation_is_valid(schema):
    of_one = {**schema["$defs"]["Adaptation"], "$defs": schema["$defs"]}
    for path in (CONFIGS / "adapt").glob("*.yaml"):
        assert wrong(of_one, load(path.read_text())) == [], path.name


def test_a_resolved_config_of_a_run_is_valid(schema, lit):
    assert wrong(schema, load(lit("fit", "--config", "lora.yaml", "--print_config").out)) == []


SLIPS = {
    "trainr": {},
    "trainer.max_step": 3,
    "trainer.max_steps": "many",
    "run.save_evry": 3,
    "score.exampels": 3,
    "forgetting.evry": 3,
    "model.class_path": "lit_fm.CausalML",
    "model.init_args.bakbone": "tiny-clm",
    "model.init_args.schedule": {"kind": "cosin"},
    "model.init_args.adaptation.class_path": "lit_fm.LoRAA",
    "model.init_args.adaptation.init_args.rnak": 3,
    "model.init_args.optimizer.init_args.lrr": 3,
    "data.init_args.sorce": "x.jsonl",
    "data.init_args.batch_size": "many",
}


@pytest.mark.parametrize("key", SLIPS)
def test_a_slip_is_refused(schema, key):
    config = copy.deepcopy(LORA)
    *outer, last = key.split(".")
    place = config
    for name in outer:
        place = place.setdefault(name, {})
    place[last] = SLIPS[key]
    assert wrong(schema, config)


def test_a_class_of_one_s_own_may_have_any_arguments(schema):
    config = {**LORA, "model": {"class_path": "mine.Objective", "init_args": {"depth": 3}}}
    assert wrong(schema, config) == []


def test_all_public_classes_are_told_by_their_short_names(schema):
    text = json.dumps(schema)
    abstract = {"Adaptation", "Objective", "Sharded"}
    concrete = set(lit_fm.__all__) - abstract
    assert not [name for name in concrete if f'"lit_fm.{name}"' not in text]
    assert len(text) < 200_000


def test_a_class_that_no_path_leads_to_is_left_out(lit):
    made = type("Vanished", (lit_fm.LoRA,), {"__module__": "a_module_that_is_not_there"})
    done = lit("schema")
    assert done.code == 0, done.err
    assert made.__name__ not in done.out
    assert explain("No module named 'elsewhere'", None) == "No module named 'elsewhere'"


def test_wrong_words_are_one_message(lit):
    assert "schema takes no options" in lit("schema", "--out", "x").err
    assert "expected one of bash, zsh, tcsh" in lit("completion", "fish").err


def test_bash_completes_options_of_fit(tmp_path):
    pytest.importorskip("shtab")
    bash = shutil.which("bash") or pytest.skip("no bash here")
    done = command("completion", "bash", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "lit-fm.bash").write_text(done.stdout)
    ask = (
        "source lit-fm.bash; COMP_WORDS=(lit-fm fit --trainer.max_); COMP_CWORD=2; "
        "of=$(complete -p lit-fm | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        "$of lit-fm --trainer.max_ fit; echo ${COMPREPLY[@]}"
    )
    said = subprocess.run([bash, "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ)
    assert {"--trainer.max_epochs", "--trainer.max_steps"} <= set(said.stdout.split())
