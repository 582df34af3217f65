"""Many tasks at once: how much of which, and what each is measured by."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from lit_fm import CausalLM, InstructionData, Mixture
from lit_fm.data.shares import Shares, by_temperature, by_weights
from lit_fm.data.task import Task


def prepared(data, world=1, rank=0, epoch=0):
    strategy = SimpleNamespace(local_rank=0, barrier=lambda: None)
    data.trainer = SimpleNamespace(
        lightning_module=CausalLM("tiny-clm"),
        strategy=strategy,
        global_rank=rank,
        world_size=world,
        current_epoch=epoch,
    )
    data.setup("fit")
    return data


def sums(tmp_path, name, n):
    path = tmp_path / f"{name}.jsonl"
    rows = [{"prompt": f"{name} {i} plus {i}", "completion": str(2 * i)} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def tasks(tmp_path):
    sizes = {"small": 40, "middle": 200, "large": 1000}
    return {name: Task(sums(tmp_path, name, n), validation_share=0.1, test_share=0) for name, n in sizes.items()}


# How much


def test_proportional_mixing_takes_every_example_once():
    assert by_temperature([10, 70, 300], 1.0, None) == [10, 70, 300]


def test_temperature_follows_t5s_formula():
    counts, cap, temperature = [100, 1000, 100_000], 5000, 2.0
    rates = np.minimum(counts, cap) ** (1 / temperature)
    taken = np.array(by_temperature(counts, temperature, cap))
    np.testing.assert_allclose(taken / taken.sum(), rates / rates.sum(), atol=1e-3)
    assert taken.sum() == pytest.approx(100 + 1000 + 5000, abs=2)


def test_a_cap_bounds_what_a_large_task_counts_for():
    assert by_temperature([100, 100_000], 1.0, 3000) == [100, 3000]


def test_a_high_temperature_mixes_evenly():
    assert by_temperature([10, 1000], 1e6, None) == [505, 505]


def test_weights_share_out_as_many_examples_as_there_are():
    assert by_weights([100, 300], [1, 1]) == [200, 200]
    assert by_weights([100, 300], [0, 2]) == [0, 400]


def test_nothing_is_seen_again_before_all_of_its_task_was():
    shares = Shares([7, 5], [3, 12], 0)
    drawn = [shares.draw(epoch) for epoch in range(7)]
    assert all(len(d) == 15 for d in drawn)
    small = Counter(int(i) for d in drawn for i in d if i < 7)
    assert set(small.values()) == {3}  # 21 of 7, each exactly three times
    large = Counter()
    for epoch in drawn:
        large.update(int(i) for i in epoch if i >= 7)
        assert max(large.values()) - min(large.values()) <= 1


# Which


def test_an_epoch_mixes_tasks_by_their_weights(tasks):
    data = prepared(Mixture(tasks, weights={"small": 1, "middle": 1, "large": 2}, batch_size=8))
    ends = np.cumsum([len(part) for part in data.parts("train").values()])
    taken = Counter(int(np.searchsorted(ends, i, side="right")) for deal in data.plan() for i in deal.numbers)
    total = sum(taken.values())
    assert [round(taken[i] / total, 2) for i in range(3)] == [0.25, 0.25, 0.5]
    assert "taken" in data.report["train: small"]


@pytest.mark.parametrize("options", [{}, {"packing": "best-fit", "max_length": 64}, {"batch_tokens": 300}])
def test_order_and_mixture_are_the_same_on_any_number_of_ranks_and_workers(tasks, options):
    def batches(world, rank, workers=0, size=8):
        data = prepared(
            Mixture(tasks, temperature=2.0, batch_size=size, workers=workers, seed=3, **options), world, rank
        )
        data.objective._way = "mask"
        return data

    one = [deal.numbers for deal in batches(1, 0).plan()]
    if "batch_tokens" not in options:  # a budget of tokens is one of a rank
        two = [[deal.numbers for deal in batches(2, rank, size=4).plan()] for rank in (0, 1)]
        assert [sorted(a) for a in one] == [sorted(a + b) for a, b in zip(*two, strict=True)]
    fed = [[b["input_ids"].tolist() for b in batches(1, 0, workers).train_dataloader()] for workers in (0, 2)]
    assert fed[0] == fed[1]


def test_all_of_a_proportional_mixture_is_seen_once_an_epoch(tasks):
    data = prepared(Mixture(tasks, batch_size=8))
    assert Counter(i for deal in data.plan() for i in deal.numbers) == Counter(range(len(data.items["train"])))


def test_each_task_has_its_own_curve_and_score(lit, in_tmp, tasks):
    config = {
        "model": {"class_path": "lit_fm.CausalLM", "init_args": {"backbone": "tiny-clm"}},
        "data": {
            "class_path": "lit_fm.Mixture",
            "init_args": {
                "tasks": {
                    "book": {"source": "smallworld/phrase-book", "rows": 60, "metrics": ["chrf"]},
                    "mood": {"source": "smallworld/sentiment", "rows": 60},
                },
                "temperature": 2.0,
            },
        },
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "score": {"examples": 8},
    }
    (in_tmp / "many.yaml").write_text(yaml.safe_dump(config))
    done = lit("fit", "--config", "many.yaml")
    assert done.code == 0, done.err
    summary = json.loads((in_tmp / "runs/many/001/summary.json").read_text())
    assert {"val_book_loss", "val_mood_loss", "book_chrf", "mood_exact_match", "mood_choice_accuracy"} <= set(summary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"small": 1}}, "expected a weight of at least 0 for each of"),
        ({"weights": {"small": 0, "middle": 0, "large": 0}}, "one of them above 0"),
        ({"weights": {"small": 1, "middle": 1, "large": 1}, "temperature": 2.0}, "leave out one of them"),
        ({"temperature": 0.0}, "must be above 0"),
        ({"cap": 0}, "at least 1"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(tasks, options, message):
    with pytest.raises(ValueError, match=message):
        Mixture(tasks, **options)


def test_tasks_that_would_learn_what_another_is_tested_with_are_refused(tmp_path):
    source = sums(tmp_path, "same", 40)
    Mixture({"a": Task(source), "b": Task(source, template="{{prompt}} ||| {{completion}}")})
    with pytest.raises(ValueError, match="cuts other splits off it"):
        Mixture({"a": Task(source), "b": Task(source, test_share=0.3)})


def test_a_temperature_near_nothing_takes_the_largest_task():
    assert by_temperature([10, 1000], 1e-3, None) == [1, 1010]


def test_the_help_of_a_mixture_says_what_its_settings_are(lit):
    assert "in tokens; as long as the backbone takes" in " ".join(lit("fit", "--data.help", "Mixture").out.split())


# How long


def test_a_budget_of_tokens_ends_the_run_at_the_step_that_reaches_it(lit, in_tmp, llama):
    source = sums(in_tmp, "budget", 120)
    options = ("--config", "lora.yaml", "--data.source", source, "--data.rows", "100", "--model.backbone", llama,
               "--data.batch_size", "4", "--score.examples", "0", "--trainer.max_steps", "-1")  # fmt: skip
    done = lit("fit", *options, "--data.token_budget", "2500")
    assert done.code == 0, done.err
    summary = json.loads(next((in_tmp / "runs/lora").glob("*/summary.json")).read_text())
    data = prepared(InstructionData(source, rows=100, batch_size=4))
    tokens, steps = 0, 0
    while tokens < 2500:
        plan = data.plan(steps // len(data.plan()))
        tokens += int(plan.batch_tokens()[steps % len(plan)])
        steps += 1
    assert summary["optimizer_steps"] == steps


def test_steps_of_a_run_are_counted_over_epochs_of_different_lengths(tasks):
    data = prepared(Mixture(tasks, weights={"small": 3, "middle": 1, "large": 1}, batch_tokens=300))
    counts = []
    for epoch in range(3):
        counts.append(-(-len(data.plan(epoch)) // 2))
    assert data.optimizer_steps(2, 3) == sum(counts)
    assert data.trainer.reload_dataloaders_every_n_epochs == 1
