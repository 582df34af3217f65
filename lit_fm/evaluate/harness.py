"""EleutherAI's lm-evaluation-harness (Gao et al. 2024) on a network that lit_fm loaded: an optional extra."""

import logging
from importlib.util import find_spec
from typing import Any

from lit_fm.backbone import context_length
from lit_fm.evaluate.generate import virtual_tokens
from lit_fm.nearest import did_you_mean

KEPT = ("results", "groups", "group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "configs")
"""What is written down of what the harness gives, besides its version."""


def ask(
    network: Any,
    tokenizer: Any,
    tasks: list[str],
    task_path: str | None = None,
    limit: int | None = None,
    shots: int | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """What the harness finds of a network that writes, with a log of each document.

    Behind virtual tokens, documents are asked one at a time: padding would part them from the text.

    Args:
        tasks: names of the harness's own, or of YAML files in `task_path`.
        limit: documents of each task; all where nothing is said.
        shots: solved examples before each document; what the task says where nothing is said.

    Raises:
        ValueError: the extra is not installed, a task is not known, or its data cannot be had.
    """
    if not find_spec("lm_eval"):
        raise ValueError("--tasks needs lm-evaluation-harness, which is not installed: pip install 'lit-fm[harness]'.")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval import evaluator
    from lm_eval.models.huggingface import HFLM

    manager = _manager(tasks, task_path)
    before = virtual_tokens(network)
    context = context_length(network.config)
    made = HFLM(
        pretrained=network, tokenizer=tokenizer, batch_size=1 if before else batch_size,
        max_length=context and context - before,
    )  # fmt: skip
    if before and not network.config.is_encoder_decoder:  # it counts positions of the text alone
        call = made._model_call
        made._model_call = lambda ids, *args, **more: call(ids, *args, **more)[:, -ids.shape[1] :]  # a prefix has none
    evaluator.get_git_commit_hash = lambda: None  # where there is no repository, git complains on the screen
    try:
        return evaluator.simple_evaluate(
            model=made, tasks=tasks, task_manager=manager, limit=limit, num_fewshot=shots, log_samples=True
        )
    except ConnectionError as error:
        raise ValueError(f"--tasks {','.join(tasks)}: the data cannot be had ({error}).") from error


def _manager(tasks: list[str], path: str | None) -> Any:
    """The tasks in a folder; where they are not all there, the harness's own thousands too, which takes longer."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=path, include_defaults=False) if path else None
    if manager is None or _unknown(manager, tasks):
        manager = TaskManager(include_path=path)
    if unknown := _unknown(manager, tasks):
        raise ValueError(f"--tasks: there is no task {unknown[0]!r}: {did_you_mean(unknown[0], manager.all_tasks)}")
    return manager


def _unknown(manager: Any, tasks: list[str]) -> list[str]:
    return [task for task in tasks if not manager.match_tasks([task])]


def measures(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The numbers of each task, by metric (and filter), without their errors."""
    return {
        task: {
            name.removesuffix(",none"): value
            for name, value in of.items()
            if "," in name and "_stderr" not in name and isinstance(value, int | float)
        }
        for task, of in found["results"].items()
    }
