"""Run folders that were never run: made-up figures of the size that such runs lead to, for tests of the page."""

import json
from pathlib import Path

import numpy as np
import yaml

# name: share that is right, learnable parameters, seconds, bytes of a weight, mean change on other tasks
TUNED = {
    "full": (0.975, 1_476_000, 42, -0.31),
    "lora": (0.965, 372_736, 47, -0.09),
    "dora": (0.95, 379_008, 67, -0.08),
    "rslora": (0.89, 745_472, 53, -0.12),
    "adapter": (0.97, 165_632, 73, -0.07),
    "bitfit": (0.41, 12_800, 36, -0.02),
    "prefix": (0.11, 64_000, 41, -0.01),
    "prompt": (0.04, 16_000, 102, 0.0),
    "ia3": (0.02, 2_816, 35, -0.004),
}
SHOTS = {0: 0.0, 1: 0.03, 4: 0.09, 8: 0.12}
OTHERS = ("sentiment", "headlines", "phrases")
WRONG = "Take one teaspoon by mouth every other day, as needed for four days."


def examples(number=200):
    """Prompts with their answers."""
    doses = [f"{n} {form}" for n in ("1", "2", "3") for form in ("tab", "cap", "gtt", "supp")]
    times = ["qd", "bid", "tid", "qid", "qod", "qam", "qpm", "q8h", "q4h"]
    prompts = [
        f"Prescription: {dose} po {time} x{i} days\nPlain English:\n"
        for i in range(2, 4)
        for dose in doses
        for time in times
    ]
    return [
        {"row": 3 * i, "prompt": prompt, "references": [answer], "answer": answer, "task": None}
        for i, prompt in enumerate(prompts[:number])
        for answer in [f"Take {prompt[14:-16]}."]
    ]  # fmt: skip


def answered(rows, share, seed, hardness=None):
    """Rows with predictions, so many of them right: mostly the easy ones."""
    random = np.random.default_rng(seed)
    hard = np.random.default_rng(7).random(len(rows)) if hardness is None else hardness
    right = hard + random.normal(0, 0.08, len(rows))
    limit = np.sort(right)[round(share * len(rows)) - 1] if share else -9
    return [{**row, "prediction": row["answer"] if r <= limit else WRONG} for row, r in zip(rows, right, strict=True)]


def write_fit(
    root,
    name,
    seed,
    share,
    learnt,
    seconds,
    change=None,
    rows=None,
    backbone="tiny-clm",
    measured=("exact_match",),
    **more,
):
    """A fit's folder as `fit` leaves it: `ROOT/NAME/NNN`."""
    folder = Path(root, name, f"{seed + 1:03d}")
    (folder / "adapter").mkdir(parents=True)
    random = np.random.default_rng(seed + learnt)
    rows = answered(examples() if rows is None else rows, share, seed + learnt)
    value = float(np.mean([row["prediction"] in row["references"] for row in rows]))
    config = {
        "seed_everything": seed,
        "model": {
            "class_path": "lit_fm.CausalLM",
            "init_args": {"backbone": backbone, "adaptation": {"class_path": f"lit_fm.{name}"}},
        },
        "data": {
            "class_path": "lit_fm.InstructionData",
            "init_args": {"source": "smallworld/medical-shorthand", "seed": 0},
        },
        "trainer": {"max_steps": 400},
        "run": {"root": str(root), "name": name},
    }
    summary = {
        "exact_match": value, "exact_match_before": 0.0, "seconds": seconds * float(random.uniform(0.9, 1.1)),
        "peak_memory_bytes": 6e8 + 200 * learnt, "learnable_parameters": learnt, "optimizer_steps": 400,
        "measured": list(measured), "generations": [],
    }  # fmt: skip
    if change is not None:
        tasks = {task: change * w for task, w in zip(OTHERS, (0.4, 0.9, 1.7), strict=True)}
        summary["forgetting"] = {
            "tasks": {n: {"metric": "exact_match", "before": 0.6, "after": 0.6 + c, "change": c} for n, c in tasks.items()},
            "mean": change, "worst": min(tasks.values()), "worst_task": min(tasks, key=tasks.get),
        }  # fmt: skip
    steps = np.arange(400)
    curve = (1 - share) * 1.2 + 7 * np.exp(-steps / (20 + 60 * (1 - share))) + random.normal(0, 0.04, 400) + 0.1
    lines = [{"step": int(i), "seconds": i / 10, "train/loss": float(loss), "lr": 1e-3} for i, loss in enumerate(curve)]
    made = {
        "command": f"python -m lit_fm fit --config {name}.yaml --seed_everything {seed}",
        "started": f"2026-11-2{seed + 1}T10:00:00+0000",
        "lit_fm": "0.1.0", "git": {"commit": "d2ccbf4b3a7a", "dirty": False},
        "packages": {"torch": "2.13.0", "peft": "0.21.2"},
        "data": {"train": {"content": "1e90fd15"}}, "hardware": {"machine": "x86_64", "threads": 2, "devices": ["cpu"]},
    }  # fmt: skip
    latency = {"unmerged": 1e-3 + 2e-9 * learnt, "merged": None if name in ("prompt", "prefix", "adapter") else 1e-3}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for file, content in {"summary.json": {**summary, **more}, "run.json": made, "latency.json": latency}.items():
        (folder / file).write_text(json.dumps(content))
    for file, content in {"scored.jsonl": rows, "metrics.jsonl": lines}.items():
        (folder / file).write_text("".join(json.dumps(line) + "\n" for line in content))
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * (learnt * 4 // 100))
    if name == "prompt":
        words = ["·the", "·tablet", "·mouth", "\\n", "·day", "ing", "·Take", "·hour"]
        notes = [
            {"step": step, "tokens": [
                {"cosine_with_start": 1 - step / 900 * i / 20, "nearest": [
                    {"id": j, "token": words[(i + j + step) % 8], "cosine": 0.9 - j / 10} for j in range(5)]}
                for i in range(20)]}
            for step in (0, 200, 400)
        ]  # fmt: skip
        (folder / "prompt_neighbours.jsonl").write_text("".join(json.dumps(note) + "\n" for note in notes))
    return folder


def write_prompting(root, shares=SHOTS, seeds=2, rows=None, backbone="tiny-clm"):
    """The folder of few-shot prompting: no seed matters without shots."""
    folder = Path(root, "icl", "001")
    folder.mkdir(parents=True)
    told, lines = [], []
    for shots, share in shares.items():
        for seed in range(seeds if shots else 1):
            made = answered(examples() if rows is None else rows, share, 100 * shots + seed)
            value = float(np.mean([row["prediction"] in row["references"] for row in made]))
            told.append(
                {
                    "shots": shots,
                    "seed": seed,
                    "selection": "random",
                    "exact_match": value,
                    "seconds": 8 + 3 * shots,
                }
            )
            lines += [{**row, "shots": shots, "seed": seed} for row in made]
    (folder / "icl.json").write_text(
        json.dumps({"settings": {"backbone": backbone}, "measured": ["exact_match"], "rows": told, "ended": True})
    )
    (folder / "scored.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_all(root, seeds=2):
    """Nine methods that learn and four that prompt."""
    for name, (share, learnt, seconds, change) in TUNED.items():
        for seed in range(seeds):
            write_fit(root, name, seed, max(0, share - 0.01 * seed), learnt, seconds, change)
    write_prompting(root, seeds=seeds)
    return root
