"""Run folders compared: what is read, what is refused, the verdict, the table, and how fast runs write."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from comparisons import TUNED, examples, write_all, write_fit, write_prompting
from conftest import QUICK, causal_configs

from lit_fm.compare import table
from lit_fm.compare.curves import by_shots
from lit_fm.compare.methods import compared
from lit_fm.compare.runs import read, slug
from lit_fm.compare.sketch import spread
from lit_fm.compare.verdict import judge


def found(*folders, metric=None):
    return compared(read(list(map(str, folders))), metric)


def fits(root, **shares):
    """Runs of one seed with these shares right; of those named later, more learns."""
    return [write_fit(root, name, 0, share, 1000 * 10**i, 10) for i, (name, share) in enumerate(shares.items())]


# Runs


def test_runs_that_differ_in_their_seed_alone_are_one_method(tmp_path):
    comparison = found(write_all(tmp_path))
    assert {m.label: len(m.runs) for m in comparison.methods} == dict.fromkeys(TUNED, 2) | {
        "zero-shot": 1, "1-shot": 2, "4-shot": 2, "8-shot": 2
    }  # fmt: skip
    full = next(m for m in comparison.methods if m.label == "full")
    assert [run.seed for run in full.runs] == [0, 1]
    for run, value in zip(full.runs, full.values, strict=True):
        right = [row["prediction"] == row["answer"] for row in run.scored]
        assert value == run.measured["exact_match"] == pytest.approx(np.mean(right))
    assert full.low < full.mean < full.high


def test_seeds_are_told_by_the_end_of_a_runs_name_and_labels_by_what_is_given(tmp_path):
    a = write_fit(tmp_path, "lora-seed3", 0, 0.5, 1000, 10)
    b = write_fit(tmp_path, "full", 1, 0.6, 1000, 10)
    records = read([str(a), f"everything={b}"])
    assert [(record.method, record.seed) for record in records] == [("lora", 3), ("everything", 1)]


def test_an_experiments_runs_on_several_backbones_are_of_one_method(tmp_path):
    backbones = [f"runs/{name}/001/model" for name in ("small", "large")]
    runs = [write_fit(tmp_path, f"lora-{slug(b)}-seed0", 0, 0.5, 1000, 10, backbone=b) for b in backbones]
    methods = found(*runs).methods
    assert {m.name for m in methods} == {"lora"}  # one line in the picture of quality against size
    assert {m.label for m in methods} == {"lora on small/001/model", "lora on large/001/model"}


def test_runs_of_one_name_with_other_settings_are_called_by_these(tmp_path):
    one, other = write_fit(tmp_path, "lora", 0, 0.5, 1000, 10), write_fit(tmp_path, "lora", 1, 0.6, 1000, 10)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("max_steps: 400", "max_steps: 800"))
    assert {m.label for m in found(one, other).methods} == {"lora (max_steps 400)", "lora (max_steps 800)"}


def test_a_seed_that_ran_twice_counts_once_and_this_is_said(tmp_path):
    folders = [write_fit(tmp_path / str(i), "lora", 0, 0.5, 1000, 10) for i in range(2)]
    comparison = found(*folders, *fits(tmp_path, full=0.6))
    assert len(next(m for m in comparison.methods if m.label == "lora").runs) == 1
    assert "several runs with the same seed" in comparison.notes[0]


def test_a_real_run_is_read(lit, in_tmp):
    assert lit("fit", "--config", "lora.yaml", *QUICK, "--trainer.max_steps", "2").code == 0
    [record] = read(["runs"])
    summary = json.loads((in_tmp / "runs/lora/001/summary.json").read_text())
    assert (record.method, record.seed, record.backbone) == ("lora", 0, "tiny-clm")
    assert record.measured == {"exact_match": summary["exact_match"]}
    assert record.numbers["learnable_parameters"] == 372_736
    assert record.numbers["bytes"] == (in_tmp / "runs/lora/001/adapter/adapter_model.safetensors").stat().st_size
    assert [step for step, _ in record.losses] == [0, 1]
    assert record.made["packages"]["torch"]


def test_prompting_that_had_no_room_or_chose_its_examples_otherwise_is_told_apart(tmp_path):
    folder = write_prompting(tmp_path, {0: 0.1, 4: 0.2, 8: 0.3}, seeds=1)
    about = json.loads((folder / "icl.json").read_text())
    about["rows"][1]["selection"] = "similar"
    del about["rows"][2]["exact_match"]
    (folder / "icl.json").write_text(json.dumps(about))
    assert [record.method for record in read([str(folder)])] == ["zero-shot", "4-shot, similar"]
    (folder / "icl.json").write_text(json.dumps({**about, "ended": False}))
    with pytest.raises(ValueError, match="has not ended: start the same `icl` again"):
        read([str(folder)])


# What is refused


def test_prompting_with_other_settings_is_another_method_and_one_without_room_for_all_shots_says_so(tmp_path):
    for name, length in (("a", 128), ("b", 512)):
        folder = write_prompting(tmp_path / name, {0: 0.1, 4: 0.5}, seeds=1)
        data = {"class_path": "lit_fm.InstructionData", "init_args": {"max_length": length}}
        (folder / "config.yaml").write_text(yaml.safe_dump({"data": data, "shots": "0,4"}))
        told = json.loads((folder / "icl.json").read_text())
        told["rows"][1] |= {"questions": 200, "fewer_shots": 50 if length == 128 else 0}
        (folder / "icl.json").write_text(json.dumps(told))
    comparison = found(tmp_path)
    assert {m.label for m in comparison.methods} == {
        f"{shots}-shot (max_length {length})" for shots in ("zero", "4") for length in (128, 512)
    }
    assert comparison.notes == ["4-shot (max_length 128): 25% of the questions had room for fewer examples."]


def test_prompting_under_two_labels_is_two_curves_each_from_its_own_zero(tmp_path):
    one, other = (write_prompting(tmp_path / n, {0: 0.1, 1: s, 4: 0.6}, seeds=1) for n, s in (("a", 0.2), ("b", 0.4)))
    svg = by_shots(found(f"one={one}", f"other={other}"))
    assert "prompting one<" in svg
    assert "prompting other<" in svg
    assert svg.count("one, zero-shot: ") == svg.count("other, zero-shot: ") == 1


def test_what_is_not_read_is_said_to_be_left_out(lit, in_tmp):
    fits(in_tmp / "runs", lora=0.5, full=0.9)
    folder = write_prompting(in_tmp / "runs", {0: 0.1, 8: 0.3}, seeds=1)
    about = json.loads((folder / "icl.json").read_text())
    about["rows"][1].pop("exact_match")
    (folder / "icl.json").write_text(json.dumps(about))
    (in_tmp / "runs/lora/002").mkdir()
    (in_tmp / "runs/lora/002/run.json").write_text("{}")
    told = " ".join(lit("compare", "runs", "--latency", "false").out.split())
    assert "1 runs that have not ended are left out, such as runs/lora/002." in told
    assert "8-shot is left out: no question had room for so many examples (see runs/icl/001)." in told
    assert "there is nothing to compare" in lit("compare", "--runs", "[]").err


def test_what_is_no_run_or_did_not_end_is_said(lit, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/config.yaml").write_text("{}")
    done = lit("compare", tmp_path / "none", "--out", "page")
    assert (done.code, "is no run" in done.err) == (1, True)
    assert "has not ended" in lit("compare", tmp_path / "cut").err


def test_other_test_examples_are_refused(tmp_path):
    rows = [{**row, "references": ["other"], "answer": "other"} for row in examples()]
    with pytest.raises(ValueError, match=r"scored different test examples .* run them with the same data"):
        found(*fits(tmp_path, lora=0.5), write_fit(tmp_path, "full", 0, 0.5, 9, 9, rows=rows))


def test_fewer_test_examples_are_compared_on_those_that_all_scored_with_a_note(tmp_path):
    few = write_fit(tmp_path, "full", 0, 0.5, 9, 9, rows=examples()[:60])
    comparison = found(*fits(tmp_path, lora=0.5), few)
    assert comparison.examples == 60
    assert "compared on the 60 that all did" in comparison.notes[0]
    with pytest.raises(ValueError, match="share only 10 test examples"):
        found(*fits(tmp_path / "more", lora=0.5), write_fit(tmp_path, "tiny", 0, 0.5, 9, 9, rows=examples()[:10]))


def test_examples_without_numbers_are_matched_by_their_order(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "row"} for row in examples()]
    folders = [write_fit(tmp_path, name, 0, 0.5, 9, 9, rows=rows) for name in ("lora", "full")]
    assert found(*folders).examples == 200


def test_a_metric_that_not_all_measured_or_that_answers_do_not_give_is_refused(tmp_path):
    a, b = fits(tmp_path, lora=0.5, full=0.6)
    with pytest.raises(ValueError, match=r"metric 'rouge1' was not measured by all runs: choose one of exact_match"):
        found(a, b, metric="rouge1")
    summary = json.loads((b / "summary.json").read_text())
    (b / "summary.json").write_text(json.dumps({**summary, "exact_match": 0.123}))
    with pytest.raises(ValueError, match="share no metric that their scored answers give"):
        found(a, b)


def test_a_broken_line_is_one_clear_error(tmp_path):
    [a] = fits(tmp_path, lora=0.5)
    (a / "scored.jsonl").write_text('{"prompt": "a"}\n{"pro')
    with pytest.raises(ValueError, match="line 2, is not JSON"):
        read([str(a)])


# The verdict


def test_the_cheapest_that_is_not_worse_than_the_best_is_recommended(tmp_path):
    comparison = found(*fits(tmp_path, bitfit=0.4, lora=0.96, full=0.975))
    verdict = judge(comparison)
    assert (comparison.best.label, verdict.chosen.label) == ("full", "lora")
    low, high = (f"{100 * end:.1f}" for end in (verdict.chosen.low, verdict.chosen.high))
    assert verdict.sentence.replace("\N{NO-BREAK SPACE}", " ") == (
        f"lora: 96.0 % exact match [{low}, {high}], within 1.5 points of the best (full, 97.5 %), at 10 % of its learnable "
        "parameters."
    )
    assert verdict.reason.startswith("Of the 2 others, 1 is not told apart from the best")


def test_the_best_is_recommended_where_all_others_are_worse(tmp_path):
    verdict = judge(found(*fits(tmp_path, bitfit=0.4, lora=0.6, full=0.975)))
    assert (verdict.chosen.label, "the best of 3 methods." in verdict.sentence) == ("full", True)
    assert verdict.reason.startswith("Every other method is significantly worse at the 5")


def test_prompting_is_enough_where_what_learns_is_not_shown_to_be_better(tmp_path):
    folders = [*fits(tmp_path, lora=0.51, full=0.52), write_prompting(tmp_path, {0: 0.1, 4: 0.5})]
    verdict = judge(found(*folders))
    assert verdict.chosen.label == "4-shot"
    assert verdict.sentence.startswith("Prompting is enough. 4-shot: 50.0")


def test_no_method_beats_zero_shot(tmp_path):
    folders = [*fits(tmp_path, lora=0.51, full=0.5), write_prompting(tmp_path, {0: 0.5, 4: 0.5})]
    verdict = judge(found(*folders))
    assert verdict.chosen.label == "zero-shot"
    assert verdict.sentence.startswith("No method is shown to beat zero-shot at this budget.")


def test_tuning_pays_where_prompting_is_worse(tmp_path):
    folders = [*fits(tmp_path, lora=0.8), write_prompting(tmp_path, {0: 0.1, 4: 0.5})]
    assert judge(found(*folders)).chosen.label == "lora"


def test_no_method_beats_the_backbone_as_it_was(tmp_path):
    folders = [write_fit(tmp_path, name, 0, 0.5, n, 9, exact_match_before=0.49) for n, name in enumerate(("a", "b"), 1)]
    verdict = judge(found(*folders))
    assert verdict.chosen is None
    assert verdict.sentence.startswith("No method beats the backbone as it was (49.0")


def test_a_best_method_that_beats_the_backbone_as_it_was_is_not_said_not_to(tmp_path):
    rows = examples(100)
    right = {"lora": set(range(62)), "ia3": {*range(8, 53), *range(62, 70)}}
    for name, learnt in (("lora", 70_000), ("ia3", 2_816)):
        folder = write_fit(tmp_path, name, 0, 0.5, learnt, 9, exact_match_before=0.5)
        lines = [{**row, "prediction": row["answer"] if i in right[name] else ""} for i, row in enumerate(rows)]
        (folder / "scored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "exact_match": len(right[name]) / 100}))
    comparison = found(tmp_path)
    assert comparison.best.low > 0.5
    assert judge(comparison).chosen.label == "ia3"


def test_no_method_solves_anything(tmp_path):
    assert judge(found(*fits(tmp_path, a=0, b=0))).sentence.startswith("No method solves any of the 200")


def test_one_method_and_prompting_alone_are_said_to_be_that(tmp_path):
    assert "nothing to compare it to" in judge(found(*fits(tmp_path, a=0.5))).sentence
    assert "no method that learns was run" in judge(found(write_prompting(tmp_path))).sentence


def test_the_verdict_stays_open_on_few_examples(tmp_path):
    rows = examples(25)
    folders = [write_fit(tmp_path, n, 0, s, w, 9, rows=rows) for n, s, w in (("a", 0.76, 1), ("b", 0.84, 9))]
    assert "the verdict stays open until more than 25 examples are scored" in judge(found(*folders)).reason


def test_a_smaller_backbone_is_cheaper(tmp_path):
    records = read([str(f) for f in fits(tmp_path, small=0.95, large=0.96)])
    sizes = {"small": 9e9, "large": 1e6}
    records = [
        replace(r, backbone=r.method, numbers={**r.numbers, "backbone_parameters": sizes[r.method]}) for r in records
    ]
    assert judge(compared(records)).chosen.backbone == "large"


# The table


def test_csv_markdown_and_rows_of_a_tracker_say_the_same(tmp_path):
    comparison = found(write_all(tmp_path))
    rows = list(csv.DictReader(io.StringIO(table.as_csv(comparison))))
    lines = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in table.markdown(comparison).splitlines()
    ]
    assert len(rows) == len(lines) - 2 == len(table.values(comparison)) == 13
    for row, line, numbers in zip(rows, lines[2:], table.values(comparison), strict=True):
        named = dict(zip(lines[0], line, strict=True))
        assert row["method"] == named["method"] == numbers[0]
        assert f"{100 * float(row['exact_match']):.1f}\N{NO-BREAK SPACE}%" == named["exact match"]
        assert f"{float(row['learnable_parameters']):,.0f}" == named["learns"]
        assert (row["p"] == "") == (named["p"] == table.NONE)
        assert [str(value) if value is not None else "" for value in numbers] == list(row.values())
    assert "energy" not in lines[0]  # of no run


def test_a_metric_of_the_corpus_is_compared(tmp_path):
    for name, share in (("lora", 0.5), ("full", 0.9)):
        folder = write_fit(tmp_path, name, 0, share, 10, 9)
        from lit_fm.evaluate.metrics import measure

        rows = [json.loads(line) for line in (folder / "scored.jsonl").read_text().splitlines()]
        bleu = measure(["bleu"], [r["prediction"] for r in rows], [r["references"] for r in rows])
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, **bleu, "measured": ["bleu", "exact_match"]}))
    comparison = found(tmp_path)
    assert comparison.metric == "bleu"
    assert comparison.methods[1].p == pytest.approx(1 / 4001, abs=1e-6)
    assert judge(comparison).sentence.startswith(f"full: {comparison.best.mean:.1f} BLEU")


# Pictures


def test_names_beside_a_picture_keep_their_distance_and_move_no_more_than_they_must():
    assert spread([5, 30, 60], 10, 0, 100) == [5, 30, 60]
    assert spread([50, 50, 50], 10, 0, 100) == [40, 50, 60]
    assert spread([0, 1, 99, 100], 10, 0, 100) == [0, 10, 90, 100]


# How fast a run writes


def test_latency_is_measured_once_and_kept(lit, in_tmp):
    from lit_fm.compare.latency import measure_latency

    for config in ("lora.yaml", "prompt.yaml", "full.yaml"):
        assert lit("fit", "--config", config, *QUICK, "--trainer.max_steps", "1").code == 0
    made = {name: measure_latency(in_tmp / "runs" / name / "001", 1, 4, 1) for name in ("lora", "prompt", "full")}
    assert made["lora"]["unmerged"] > 0
    assert made["lora"]["merged"] > 0
    assert made["prompt"]["merged"] is None
    assert "stays in front of the text" in made["prompt"]["why"]
    assert made["full"]["merged"] == made["full"]["unmerged"]
    assert measure_latency(in_tmp / "runs/lora/001") == made["lora"]


@pytest.mark.parametrize("prompt", ["Say\u2028it: ", "word " * 900])
def test_latency_is_measured_with_prompts_that_have_strange_line_ends_or_are_longer_than_the_context(
    lit, in_tmp, make_backbone, prompt
):
    from lit_fm.compare.latency import measure_latency

    rows = [{"prompt": f"{prompt}{i}", "completion": "yes"} for i in range(20)]
    (in_tmp / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit = ("--data.max_length", "64", "--data.batch_size", "2", "--trainer.max_steps", "1", "--score.examples", "2")
    backbone = make_backbone("gpt2", causal_configs()["gpt2"])  # whose positions are learnt: there are no more
    own = ("--data.source", "own.jsonl", "--model.backbone", backbone)
    assert lit("fit", "--config", "full.yaml", *own, *fit).code == 0
    assert measure_latency(in_tmp / "runs/full/001", 1, 4, 1)["unmerged"] > 0
