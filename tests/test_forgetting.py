"""What a fit forgets: measured as the score measures, without a trace in the run itself."""

import json
import signal

import pytest
from conftest import ROWS
from forks import dies_at, ended, finish, ranked, started
from safetensors.torch import load_file

from lit_fm.evaluate.forgotten import change

SMALL = (
    "--run.tracker none --score.examples 0 --trainer.max_steps 5 --data.rows 64 --data.batch_size 4 "
    "--trainer.enable_progress_bar false --forgetting.examples 4 --forgetting.every 2"
).split()
SENTIMENT = '--forgetting.tasks={"mood": {"source": "smallworld/sentiment"}}'
GENERAL = '--forgetting.corpora={"general": "notes.txt"}'


def write_notes(folder):
    """Of which a corpus holds out 200 documents for test."""
    (folder / "notes.txt").write_text("\n\n".join(f"The {i}th cat sat on a mat." for i in range(410)))


OBJECTIVES = {
    "causal": ("lora.yaml", "--model.adaptation.dropout=0.5", SENTIMENT, GENERAL),
    "masked": ("cloze.yaml", SENTIMENT, GENERAL),
    "spans": ("seq2seq.yaml", '--forgetting.tasks={"phrases": {"source": "smallworld/phrase-book"}}', GENERAL),
}


def found_in(folder):
    return json.loads((folder / "summary.json").read_text())["forgetting"], json.loads(
        (folder / "forgetting.json").read_text()
    )


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_a_run_that_is_measured_learns_the_same_weights_to_the_bit(lit, in_tmp, kind):
    config, *more = OBJECTIVES[kind]
    write_notes(in_tmp)
    for name, options in (("bare", [m for m in more if "forgetting" not in m]), ("measured", more)):
        done = lit("fit", "--config", config, *SMALL, *options, "--run.name", name)
        assert done.code == 0, done.err
    bare, own = (in_tmp / "runs" / name / "001" for name in ("bare", "measured"))
    (weights,) = bare.glob("*/*.safetensors")
    one, other = load_file(weights), load_file(own / weights.relative_to(bare))
    assert all(one[key].equal(other[key]) for key in one)
    losses = [
        [line["train/loss"] for line in map(json.loads, (run / "metrics.jsonl").open()) if "train/loss" in line]
        for run in (bare, own)
    ]
    assert losses[0] == losses[1]
    assert not (bare / "forgetting.json").exists()
    assert "forgetting" not in json.loads((bare / "summary.json").read_text())
    summary, written = found_in(own)
    assert [one["step"] for one in written["history"]] == [0, 2, 4, 5]
    assert summary == written["change"]
    assert (own / "forgetting.png").stat().st_size > 10_000


def test_a_held_out_task_is_measured_as_the_score_measures_it(lit, in_tmp):
    task = (
        '--forgetting.tasks={"mood": {"source": "smallworld/sentiment", "metrics": ["exact_match", "choice_accuracy"]}}'
    )
    metrics = '--data.metrics=["exact_match", "choice_accuracy"]'
    done = lit(
        "fit", "--config", "choose.yaml", *SMALL, metrics, task, "--score.examples", "9", "--forgetting.examples=9"
    )
    assert done.code == 0, done.err
    summary = json.loads((in_tmp / "runs/choose/001/summary.json").read_text())
    _, written = found_in(in_tmp / "runs/choose/001")
    for one, ending in ((written["history"][0], "_before"), (written["history"][-1], "")):
        assert one["tasks"]["mood"] == {name: summary[name + ending] for name in ("exact_match", "choice_accuracy")}


def test_a_held_out_corpus_is_measured_as_the_score_measures_it_on_the_documents_that_the_run_holds_out(lit, in_tmp):
    (in_tmp / "notes.txt").write_text("\n\n".join(f"The {i}th cat sat on {i * 7} mats." for i in range(60)))
    options = [word for word in SMALL if word not in ("--data.rows", "64")]
    done = lit(
        "fit", "--config", "adapt-medical.yaml", "--data.source=notes.txt", "--data.weights=null", "--data.held_out=9",
        '--forgetting.corpora={"notes": "notes.txt"}', *options, "--score.examples=9", "--data.block_size=256",
    )  # fmt: skip
    assert done.code == 0, done.err
    summary = json.loads((in_tmp / "runs/adapt-medical/001/summary.json").read_text())
    found, written = found_in(in_tmp / "runs/adapt-medical/001")
    last = written["history"][-1]["corpora"]["notes"]
    assert last == {name: summary[name] for name in ("loss", "perplexity", "bits_per_byte")}
    assert found["corpora"]["notes"]["before"] == summary["loss_before"]
    assert "mean" not in found


def test_a_run_that_was_killed_goes_on_with_its_history(tmp_path):
    command = ["fit", "--config", "lora.yaml", *SMALL, SENTIMENT, GENERAL, "--run.save_every", "2"]

    def run(name, *hooks):
        folder = tmp_path / name
        folder.mkdir()
        write_notes(folder)
        for hook in hooks:
            code = yield from ended(started(folder, command, hook))
            assert code == (-signal.SIGKILL if hook else 0), (folder / "out.txt").read_text()[-3000:]
            kept = json.loads((folder / "runs/lora/001/forgetting.json").read_text())
            assert kept["history"][0]["step"] == 0  # written at once, whatever comes
        return kept

    straight, killed = finish(run("straight", None), run("killed", dies_at(3), None))
    assert killed == straight
    assert [one["step"] for one in killed["history"]] == [0, 2, 4, 5]


def test_two_ranks_find_what_one_finds(tmp_path, llama):
    command = (
        f"fit --config lora.yaml --model.backbone {llama} --trainer.accelerator cpu --trainer.max_steps 1 "
        "--run.tracker none --score.examples 0 --data.rows 40 --forgetting.examples 5"
    ).split()
    found = []
    for ranks in (1, 2):
        (folder := tmp_path / str(ranks)).mkdir()
        write_notes(folder)
        more = ["--trainer.strategy", "ddp", "--trainer.devices", "2"] if ranks == 2 else []
        codes, said = ranked(folder, [*command, SENTIMENT, GENERAL, *more], ranks)
        assert codes == [0] * ranks, said[-3000:]
        found.append(json.loads((folder / "runs/lora/001/forgetting.json").read_text())["history"][0])
    assert found[1]["tasks"] == found[0]["tasks"]
    assert found[1]["corpora"]["general"]["loss"] == pytest.approx(found[0]["corpora"]["general"]["loss"], rel=1e-6)


def test_the_change_is_told_of_the_metric_that_counts_and_metrics_to_100_as_shares():
    history = [
        {"step": 0, "tasks": {"a": {"accuracy": 0.9, "x": 1.0}, "b": {"chrf": 60.0}}, "corpora": {"c": {"loss": 1.0}}},
        {"step": 5, "tasks": {"a": {"accuracy": 0.1, "x": 1.0}, "b": {"chrf": 70.0}}, "corpora": {"c": {"loss": 3.0}}},
        {"step": 9, "tasks": {"a": {"accuracy": 0.8, "x": 1.0}, "b": {"chrf": 30.0}}, "corpora": {"c": {"loss": 1.5}}},
    ]
    found = change(history)
    assert found["tasks"]["b"] == {"metric": "chrf", "before": 60.0, "after": 30.0, "change": -30.0}
    assert found["corpora"]["c"] == {"metric": "loss", "before": 1.0, "after": 1.5, "change": 0.5}
    assert found["mean"] == pytest.approx(-0.2)
    assert (found["worst"], found["worst_task"]) == (pytest.approx(-0.3), "b")


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("lora.yaml", ["--forgetting.every=0", SENTIMENT], "forgetting.every 0 must be at least 1"),
        ("lora.yaml", ['--forgetting.tasks={"a": {"source": "nowhere.jsonl"}}'], "forgetting.tasks.a: "),
        ("lora.yaml", ['--forgetting.corpora={"a": "smallworld/medicine"}'], "forgetting.corpora.a: "),
        ("lora.yaml", ['--forgetting.tasks={"a": {"source": "rows.jsonl", "test_share": 0}}'], "no test rows"),
        ("cloze.yaml", ['--forgetting.tasks={"a": {"source": "rows.jsonl"}}'], "has an answer that MaskedLM can give"),
        ("classify.yaml", [SENTIMENT], "SequenceClassification knows the classes that it is trained on"),
        ("lora.yaml", ["--data.source=rows.jsonl", '--forgetting.tasks={"a": {"source": "rows.jsonl", "test_share": 0.2}}'],
         "cuts other splits off it"),
        ("lora.yaml", [SENTIMENT, '--forgetting.corpora={"mood": "smallworld/general"}'], "both a task and a corpus"),
        ("lora.yaml", ['--forgetting.tasks={"a": {"source": "rows.jsonl", "metrics": ["choice_accuracy"]}}'],
         "forgetting.tasks.a: data.metrics: choice_accuracy needs rows with"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_one_error_before_training(lit, in_tmp, config, options, message):
    (in_tmp / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = lit("fit", "--config", config, *SMALL, *options)
    assert done.code != 0
    assert message in done.err
    assert len(done.err.splitlines()) <= 2, done.err
    assert "step 1/5" not in done.out
    assert not (in_tmp / "runs").exists()
