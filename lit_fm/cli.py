"""The one door: Lightning's fit, validate, test and predict, and plain functions beside them.

Nothing heavy is imported before a verb needs it. Errors that a person can mend are one short message.
"""

import inspect
import json
import logging
import os
import sys
import traceback
import warnings
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, get_args

from lit_fm import __version__
from lit_fm.arguments import expand
from lit_fm.imports import import_at_once
from lit_fm.nearest import did_you_mean

TRAINER_VERBS = {
    "fit": "train: pre-train, or fine-tune with an adaptation",
    "validate": "loss on the validation split",
    "test": "loss and exact match on the test split",
    "predict": "write answers to the prompts of the test split, or of --data.test FILE",
}
LOOKS = {"show": "examples as the model sees them", "report": "counts, lengths, duplicates, overlap, steps"}
FUNCTIONS = {
    "merge": (
        "ship.merge:merge",
        "fold what a run learnt into its backbone, and verify it: merge RUN --out DIR",
    ),
    "export": ("ship.export:export", "a run's adapter or model with a card, to publish: export RUN --out DIR"),
    "push": ("ship.push:push", "what export or merge wrote, to the Hugging Face Hub: push DIR --to USER/NAME"),
    "adapters": ("ship.adapters:adapters", "what adapters cost on disk, beside whole models: adapters RUN RUN"),
    "switch": ("ship.adapters:switch", "answer requests over one backbone, each with the adapter that it names"),
    "combine": ("ship.adapters:combine", "one adapter out of several over one backbone: a sum, TIES, DARE"),
    "diagnose": ("ship.diagnose:diagnose", "how far LoRA moved each layer of a run, and in how many directions"),
    "generate": (
        "evaluate.generate:generate",
        "write text to prompts: from a run, an adapter, a zoo entry, an id",
    ),
    "evaluate": ("evaluate.verb:evaluate", "lm-evaluation-harness (--tasks), or perplexity of text (--text)"),
    "prompt-neighbours": (
        "evaluate.neighbours:prompt_neighbours",
        "the tokens that a soft prompt is nearest to: prompt-neighbours RUN",
    ),
    "train-tokenizer": (
        "data.tokenizer:train_tokenizer",
        "make a tokenizer from text: BPE, WordPiece or Unigram",
    ),
    "tokens": ("tokens:tokens", 'what a backbone makes of a text: pieces, ids, vectors (tokens "The teacher.")'),
    "scale": (
        "plan.scale:scale",
        "what training costs, the loss to expect, how far from optimal: scale --parameters 70B --tokens 1.4T",
    ),
    "zoo": ("catalogue:zoo", "the model zoo: zoo list, show NAME, compare NAME NAME, new-card RUN"),
    "twin": ("twin:twin", "a small twin of a zoo entry, to train from nothing: twin gpt-3-175b --out DIR"),
}
COMMANDS = {
    "data": ("look:look_at_data", ""),
    "plan": ("look:plan", "will it fit, what will it take: plan --config NAME [--device rtx4090]"),
    "profile": (
        "profile:profile",
        "where time and memory of a step go, and what is wasted: profile --config NAME [--steps 20]",
    ),
    "icl": ("in_context:icl", "zero-, one- and few-shot: icl --config NAME [--shots 0,1,2,4,8] [--seeds 3]"),
    "compare": (
        "compare.verb:compare",
        "which method: run all, compare --config compare.yaml; or of runs that ended: compare RUN RUN --out DIR",
    ),
    "sweep": (
        "sweep.verb:sweep",
        "many fits, to find the best settings: sweep --config NAME --sweep sweep.yaml [--wandb]",
    ),
    "selftest": (
        "selftest:selftest",
        "is a killed run that goes on the run it was? selftest resume --config NAME",
    ),
    "schema": ("completion:schema", "a JSON schema of configs, for editors: schema > configs/schema.json"),
    "completion": ("completion:completion", "completes `lit-fm fit` in a shell: completion bash > FILE"),
}
"""Verbs that read their options by themselves."""
OUT_OF_MEMORY = (
    "The step does not fit into memory. Lower data.batch_size, and raise trainer.accumulate_grad_batches by as much: the "
    "steps stay the same. Or lower data.max_length, add --config trainer/activation-checkpointing.yaml or "
    "trainer/bf16.yaml, use --model.adaptation adapt/qlora.yaml, or several devices with --config trainer/fsdp.yaml."
)
HELP = f"""lit_fm {__version__}: pre-train and fine-tune foundation models.

  python -m lit_fm VERB [--config NAME ...] [--KEY VALUE ...]

{{verbs}}

A config is a path, or a name in configs/ (try lora.yaml); later ones overlay earlier ones.
  python -m lit_fm fit --config lora.yaml
  python -m lit_fm fit --config lora.yaml --data.source my.jsonl --model.backbone Qwen/Qwen3-0.6B
  python -m lit_fm VERB --help
  python -m lit_fm fit --model.help CausalLM          (likewise --data.help InstructionData)
"""


def main(argv: list[str] | None = None) -> None:
    """Run one verb; exits with 2 on a wrong command line, with 1 on any other error."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        looks = {f"data {name}": (name, text) for name, text in LOOKS.items()}
        told = {**looks, **COMMANDS, **FUNCTIONS}
        verbs = TRAINER_VERBS | {name: text for name, (_, text) in told.items() if text}
        print(HELP.format(verbs="\n".join(f"  {name:<17} {text}" for name, text in verbs.items())), end="")
        return
    verb, rest = argv[0], argv[1:]
    if verb == "--version":
        print(__version__)
    elif verb in FUNCTIONS:
        guarded(run_function, verb, rest, FUNCTIONS[verb])
    elif verb in TRAINER_VERBS:
        try:
            guarded(run_trainer, verb, rest)
        finally:
            leave_if_a_tracker_hangs(sys.exc_info()[1])
    elif verb in COMMANDS:
        guarded(run_command, verb, rest)
    else:
        fail(
            f"there is no verb {verb!r}: {did_you_mean(verb, [*TRAINER_VERBS, *FUNCTIONS, *COMMANDS])}",
            code=2,
        )


def quiet() -> None:
    """Leave out what the libraries say of every run, so that what matters is seen."""
    for logger in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*`training_step` returned.*",
        ".*Trying to infer the `batch_size`.*",
        ".*is_gradient_checkpointing. is deprecated.*",
        ".*Position ids are not supported for parameter efficient tuning.*",
        ".*ended before the epoch ended and your dataloader.*",  # ours goes on where it was
        ".*sync_dist=True.*",  # what we log is of all ranks already
        ".*torch.distributed is disabled, unavailable or uninitialized.*",
        ".*callbacks used to create the checkpoint need to be provided.*",
    ):
        warnings.filterwarnings("ignore", text)


def fail(message: str, code: int = 1) -> NoReturn:
    """End with one message."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def guarded(call: Any, *args: Any) -> None:
    """Errors that lit_fm raises on purpose are for the user: one message. Others keep their traceback."""
    quiet()
    try:
        call(*args)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = Path(frames[-1].filename).is_relative_to(Path(__file__).parent)
        if "jsonargparse" in frames[-1].filename and not os.environ.get("LIT_FM_DEBUG"):
            from lit_fm.explain import explain

            fail(explain(str(error), None))  # it wraps what a constructor said
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            fail(f"{str(error).splitlines()[0]} {OUT_OF_MEMORY}")
        named = isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)
        settings = "trainer/connectors" in frames[-1].filename and isinstance(error, ValueError)
        trainers = (
            settings or type(error).__name__ == "MisconfigurationException"
        )  # Lightning's words for a wrong setting
        mendable = named or trainers or (ours and isinstance(error, ValueError | OSError))
        if os.environ.get("LIT_FM_DEBUG") or not mendable:
            raise
        fail(str(error))


def leave_if_a_tracker_hangs(error: BaseException | None) -> None:
    """End the process at once, with the code that it would have ended with: at its end, the tracker would hang again."""
    track = sys.modules.get("lit_fm.track")
    if not track or not track.any_hangs():
        return
    if error is not None and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def run_command(verb: str, args: list[str]) -> None:
    """A verb that reads its options by itself."""
    module, name = COMMANDS[verb][0].split(":")
    getattr(import_at_once(f"lit_fm.{module}"), name)(args)


def run_function(verb: str, args: list[str], known: tuple[str, str]) -> None:
    """A plain function, known by its module and name, and what it does: its parameters are the options."""
    from jsonargparse import ArgumentParser

    from lit_fm.explain import explain

    class Parser(ArgumentParser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(explain(message, self), code=2)

    module, name = known[0].split(":")
    function = getattr(import_at_once(f"lit_fm.{module}"), name)
    parser = Parser(prog=f"lit_fm {verb}", description=known[1], allow_abbrev=False)
    parser.add_function_arguments(function, fail_untyped=False)
    function(**parser.instantiate_classes(parser.parse_args(_named(args, function))).as_dict())


def _named(args: list[str], function: Any) -> list[str]:
    """Words before the first option are the function's parameters in their order; a list takes all words that follow."""
    kinds = {f"--{name}": p.annotation for name, p in inspect.signature(function).parameters.items()}
    lists = [key for key, kind in kinds.items() if list[str] in (kind, *get_args(kind))]
    words = list(takewhile(lambda arg: not arg.startswith("--"), args))
    options, named, key = args[len(words) :], [], ""
    many: dict[str, list[str]] = {}
    for key in kinds:
        if words and key in lists:
            many[key], words = words, []
        elif words:
            named += [key, words.pop(0)]
    for arg in options:
        key = arg if arg.startswith("--") else key
        if key in lists:
            many.setdefault(key, []).extend([arg] if arg != key else [])
        else:
            named.append(arg)
    named += [f"{key}={of[0] if ''.join(of).startswith('[') else json.dumps(of)}" for key, of in many.items()]
    return [*named, *words]


def run_trainer(verb: str, args: list[str]) -> None:
    """One of Lightning's verbs."""
    name, args = expand(args, verb)
    sys.argv = [sys.argv[0], verb, *args]
    import_at_once("lit_fm.trainer_cli").run(verb, args, name)
