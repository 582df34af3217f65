"""The weights of the zoo are what their recipes make, and do what their cards say."""

import json
import re

import pytest
import yaml
from conftest import ROOT

from lit_fm.zoo import entries

RECIPES = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))


def recorded(name):
    """The curve of a card: loss by step, each the mean of the 20 steps that begin there."""
    table = re.findall(
        r"^\| (?:step|training loss[^|]*) \|(.*)\|$", (entries()[name] / "README.md").read_text(), re.MULTILINE
    )
    steps, losses = ([cell.strip().replace(",", "") for cell in row.split("|")] for row in table)
    return {int(step): float(loss) for step, loss in zip(steps, losses, strict=True)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_card_s_curve_is_that_of_its_recipe_s_length(path):
    steps = yaml.safe_load(path.read_text())["trainer"]["max_steps"]
    curve = recorded(path.stem)
    assert {0, steps // 10, steps - 20} <= set(curve)
    assert curve[max(curve)] < 0.5 * curve[0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_on_its_recorded_curve_after_a_tenth(lit, in_tmp, path):
    steps = yaml.safe_load(path.read_text())["trainer"]["max_steps"]
    first = ("--trainer.max_steps", steps // 10 + 20, "--model.schedule.steps", steps, "--score.examples", 0)
    done = lit(
        "fit", "--config", f"pretrain/{path.name}", *first, "--run.tracker", "none", "--trainer.limit_val_batches", 0
    )
    assert done.code == 0, done.err
    lines = (in_tmp / "runs" / path.stem / "001" / "metrics.jsonl").read_text().splitlines()
    losses = [loss for line in lines if (loss := json.loads(line).get("train/loss")) is not None]
    curve = recorded(path.stem)
    for step in (0, steps // 10):
        assert sum(losses[step : step + 20]) / 20 == pytest.approx(curve[step], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "measure", "least"),
    [
        ("lora.yaml", "exact_match", 0.95),
        ("full.yaml", "exact_match", 0.95),
        ("dora.yaml", "exact_match", 0.9),
        ("adapter.yaml", "exact_match", 0.95),
        ("classify.yaml", "accuracy", 0.95),
        ("cloze.yaml", "exact_match", 0.95),
        ("tag.yaml", "entity_f1", 0.9),
        ("seq2seq.yaml", "exact_match", 0.9),
    ],
)
def test_a_config_reaches_on_held_out_content_what_is_said_of_it(lit, in_tmp, config, measure, least):
    assert lit("fit", "--config", config, "--run.tracker", "none").code == 0
    summary = json.loads((in_tmp / "runs" / config.removesuffix(".yaml") / "001" / "summary.json").read_text())
    assert summary["scored_examples"] == 200
    assert summary[measure] >= least


@pytest.mark.slow
def test_tiny_t5_learns_the_sentiment_of_reviews(lit, in_tmp):
    more = (
        "--data.source",
        "smallworld/sentiment",
        "--data.rows",
        2000,
        "--trainer.max_epochs",
        2,
        "--run.tracker",
        "none",
    )
    assert lit("fit", "--config", "seq2seq.yaml", *more).code == 0
    assert json.loads((in_tmp / "runs" / "seq2seq" / "001" / "summary.json").read_text())["exact_match"] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["medical", "legal"])
def test_a_domain_s_perplexity_falls_and_general_text_pays_for_what_is_left_out(lit, in_tmp, domain):
    found = []
    for alone in (False, True):
        share = (f"--data.weights.{domain}", 1, "--data.weights.general", 0) if alone else ()
        assert lit("fit", "--config", f"adapt-{domain}.yaml", "--run.tracker", "none", *share).code == 0
        run = in_tmp / "runs" / f"adapt-{domain}" / ("002" if alone else "001")
        found.append(json.loads((run / "summary.json").read_text()))
    for summary in found:
        assert summary[f"{domain}_perplexity"] <= 0.7 * summary[f"{domain}_perplexity_before"]
    mixed, single = ((s["general_perplexity"] / s["general_perplexity_before"]) for s in found)
    assert mixed < 1.1
    assert single > 2
