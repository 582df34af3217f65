"""When each optimizer step ended, in any trainer: `python stamps.py MODULE ARGUMENTS` runs a module with stamps.

Lines of `STAMPS`, a file: seconds since 1970, CPU seconds of the process. What a job has to tell goes to `TOLD`, as JSON.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path


def stamp() -> None:
    """From here on, write a line after each step, by PyTorch's own hook."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    file = Path(os.environ["STAMPS"]).open("a", buffering=1)  # noqa: SIM115 (until the process ends)
    register_optimizer_step_post_hook(lambda *_: file.write(f"{time.time():.6f} {time.process_time():.6f}\n"))


def tell(tokens: list[int], losses: list[float]) -> None:
    """Useful tokens and the loss of each step."""
    Path(os.environ["TOLD"]).write_text(json.dumps({"tokens": tokens, "losses": losses}))


if __name__ == "__main__":
    stamp()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
