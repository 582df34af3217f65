"""Several tasks, each with vectors of its own before the shared backbone."""

import json

import pytest
import torch
from test_loss_and_gradients import objective

from lit_fm import SoftPrompt
from lit_fm.data import smallworld

NAMES = ("sentiment", "medical-shorthand")


def multitask(llama):
    made = objective(llama, SoftPrompt(tokens=4, tasks=list(NAMES)))
    encoder = made.network.prompt_encoder["default"]
    torch.manual_seed(1)
    encoder.prefix_task_cols.data += torch.randn_like(encoder.prefix_task_cols)
    made.network.eval()
    return made


def rows(number):
    return [{**row, "task": name} for name in NAMES for row in smallworld.rows(name, "train", number)]


@torch.no_grad()
def test_a_batch_of_several_tasks_is_each_with_its_own_prompt(llama):
    made = multitask(llama)
    examples = rows(2)
    items = made.encode(examples, 200)
    numbers = torch.tensor(made.adaptation.tasks_of(examples))
    assert numbers.tolist() == [0, 0, 1, 1]
    together, _ = made.token_losses({**made.collate(items), "task_ids": numbers})
    alone = [made.token_losses({**made.collate([i]), "task_ids": n[None]}) for i, n in zip(items, numbers, strict=True)]
    torch.testing.assert_close(together, sum(loss for loss, _ in alone), rtol=1e-5, atol=1e-4)
    other, _ = made.token_losses({**made.collate(items), "task_ids": 1 - numbers})
    assert not torch.isclose(together, other)


def test_the_prompt_of_a_task_is_the_shared_one_times_a_matrix_of_rank_one(llama):
    """Wang et al. 2023, equation 2."""
    made = multitask(llama)
    encoder = made.network.prompt_encoder["default"]
    encoder.num_ranks, expected = 1, encoder.embedding.weight * (encoder.prefix_task_cols @ encoder.prefix_task_rows)
    found = made.network.get_prompt(2, torch.tensor([0, 1]))
    torch.testing.assert_close(found, expected)


def test_answers_are_those_of_single_examples(llama):
    made = multitask(llama)
    examples = rows(3)
    assert made.answers(examples, 6) == [made.answers([example], 6)[0] for example in examples]
    with pytest.raises(ValueError, match="of the task 'recipes', expected one of sentiment, medical-shorthand"):
        made.answers([{**examples[0], "task": "recipes"}], 6)


def test_rows_say_their_task_and_others_are_dropped_and_counted(lit, in_tmp):
    made = [
        *rows(20),
        {"prompt": "one", "completion": "two", "task": "recipes"},
        {"prompt": "one", "completion": "two"},
    ]
    (in_tmp / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    arguments = {"tokens": 4, "tasks": list(NAMES)}
    settings = json.dumps({"class_path": "lit_fm.SoftPrompt", "init_args": arguments})
    more = ("--run.tracker", "none", "--score.examples", "4", "--data.batch_size", "8", "--trainer.max_steps", "3")
    test = (("--data.test", "test.jsonl"), ("--data.validation", "test.jsonl"))
    (in_tmp / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(3)))
    source = ("--data.source", "train.jsonl", *(part for pair in test for part in pair))
    done = lit("fit", "--config", "lora.yaml", *source, "--model.adaptation", settings, *more)
    assert done.code == 0, done.err
    assert "2 x a task that the adaptation does not name" in " ".join(done.out.split())
    done = lit("predict", "--run", "runs/lora/001")
    assert done.code == 0, done.err
    answered = [json.loads(line) for line in (in_tmp / "runs" / "lora" / "001" / "predictions.jsonl").open()]
    assert [row["task"] for row in answered] == [row["task"] for row in rows(3)]
    done = lit("generate", "--model", "runs/lora/001", "--prompt", "hello")
    assert "has a soft prompt for each task" in done.err


def test_one_task_needs_no_prompts_of_its_own():
    with pytest.raises(ValueError, match="tasks need two names or more"):
        SoftPrompt(tasks=["one"])
