"""README's commands do what they say, one after the other in one folder, on small data and the built-in models."""

import json
import re
import shlex

import pytest
from conftest import GUIDE, ROOT
from test_configs import commands_of

IN_TABLES = re.findall(r"`(python -m lit_fm [a-z][^`]+)`", GUIDE.read_text())
COMMANDS = list(dict.fromkeys([*commands_of(GUIDE, "python -m lit_fm"), *IN_TABLES]))
STAND_INS = {
    "Qwen/Qwen3-0.6B": "tiny-clm",
    "google/flan-t5-base": "tiny-t5",
    "roberta-base": "tiny-mlm",
    "path/to/model": str(ROOT / "zoo" / "tiny-clm"),
}
ELSEWHERE = {
    r"--config compare": "test_experiment.py: ten minutes",
    r"compare runs/": "test_compare.py: runs that were scored on the same data",
    r" sweep ": "test_sweep.py: ten trials",
    r"selftest": "test_resume.py: two processes",
    r"trainer/(ddp|fsdp)": "test_ranks.py: two processes",
    r"trainer/gpu": "a GPU",
    r" push ": "test_hub.py: an account",
    r"hellaswag": "test_evaluate.py: a download",
    r"--devices 1024": "test_plan.py: a minute",
    r"--run\.(save_every|resume)": "test_resume.py: a run to go on with",
    r"fit --run ": "the same",
}
BEFORE = ("lora.yaml", "lora.yaml", "prompt.yaml", "full.yaml")
FIT = ("--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--run.tracker=none", "--data.batch_size=4")


def files(folder):
    """What the commands call by a name of the user's."""
    pairs = [{"prompt": f"Is {n} even?", "completion": ("yes", "no")[n % 2]} for n in range(60)]

    def lines(name, rows):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def table(name, *columns):
        rows = [",".join(columns), *(f"Is {row['prompt'][3:-1]}?,{row['completion']}" for row in pairs)]
        (folder / name).write_text("\n".join(rows) + "\n")

    lines("my.jsonl", pairs)
    lines("new_prompts.jsonl", pairs[:3])
    lines("requests.jsonl", [{"adapter": "ab"[n % 2], "prompt": "Is 3 even?"} for n in range(4)])
    lines("wikitext.jsonl", [{"text": f"The river number {n} flows to the sea. " * 8} for n in range(1000)])
    table("bank.csv", "text", "category")
    table("news.csv", "text", "label")
    table("reviews.csv", "prompt", "completion")
    answers = [{"questions": [{"question": row["prompt"], "answer": row["completion"]}]} for row in pairs]
    (folder / "tat.json").write_text(json.dumps(answers))
    named = {name: {"name": name, "jinja": f"{name}: {{{{text}}}} ||| {{{{label}}}}"} for name in ("classify", "ask")}
    (folder / "templates.yaml").write_text(json.dumps({"templates": named}))
    (folder / "my_notes.txt").write_text("\n\n".join(f"The patient number {n} slept well. " * 8 for n in range(1000)))


def words_of(said):
    found = [STAND_INS.get(word, word) for word in shlex.split(said.replace("$'", "'"))[3:]]
    if found[0] == "fit" and not any(".help" in word or "--print_config" in word for word in found):
        of_corpus = any(word.startswith(("pretrain/", "adapt-")) for word in found)
        found += [*FIT, *(() if of_corpus else ("--score.examples=4",))]
        found += ["--data.documents=300"] if "pretrain" in said else []
        found += ["--forgetting.examples=9"] if "forgetting.yaml" in said else []
    if found[0] == "profile":
        found += ["--steps", "3"]
    if found[0] == "icl":
        found += ["--score.examples=8"]
    return found


@pytest.mark.slow
def test_each_command_of_readme_runs(lit, in_tmp):
    files(in_tmp)
    for config in BEFORE:
        assert lit(*words_of(f"python -m lit_fm fit --config {config}")).code == 0
    ran, failed = 0, {}
    for said in COMMANDS:
        if not any(re.search(pattern, said) for pattern in ELSEWHERE):
            done = lit(*words_of(said))
            ran += 1
            failed |= {said: done.err} if done.code else {}
    assert not failed, "\n".join(f"{said}: {error}" for said, error in failed.items())
    assert ran > 50
    assert all(any(re.search(pattern, said) for said in COMMANDS) for pattern in ELSEWHERE)
