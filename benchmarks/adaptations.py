"""Every adaptation on one task (smallworld's prescriptions, tiny-clm): `python benchmarks/adaptations.py [NAME ...]`.

One run after the other, each in a process of its own; prints a table in Markdown. About 20 minutes on two cores.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

LR = "--model.optimizer.lr"
STEPS = "--trainer.max_steps"
RUNS = {
    "Full": ("full.yaml",),
    "last two blocks": ("full.yaml", "--model.adaptation", "adapt/last-blocks.yaml", LR, "2e-3"),
    "attention": ("full.yaml", "--model.adaptation", "adapt/attention.yaml", LR, "2e-3"),
    "norms": ("full.yaml", "--model.adaptation", "adapt/norms.yaml", LR, "3e-2"),
    "gradual unfreezing": ("full.yaml", "--model.adaptation", "adapt/gradual.yaml"),
    "LoRA": ("lora.yaml",),
    "rsLoRA": ("lora.yaml", "--model.adaptation", "adapt/rslora.yaml"),
    "DoRA": ("dora.yaml",),
    "PiSSA": ("lora.yaml", "--model.adaptation", "adapt/pissa.yaml", LR, "2e-3"),
    "OLoRA": ("lora.yaml", "--model.adaptation", "adapt/olora.yaml", LR, "2e-3"),
    "LoRA+": ("lora.yaml", "--model.adaptation", "adapt/lora-plus.yaml"),
    "AdaLoRA": ("lora.yaml", "--model.adaptation", "adapt/adalora.yaml", LR, "1e-2"),
    "QLoRA (4 bits)": ("qlora.yaml",),
    "LoRA (8 bits)": ("qlora.yaml", "--model.adaptation.bits", "8"),
    "LoHa": ("lora.yaml", "--model.adaptation", "adapt/loha.yaml"),
    "adapters, Houlsby": ("adapter.yaml",),
    "adapters, Pfeiffer": ("adapter.yaml", "--model.adaptation", "adapt/pfeiffer.yaml"),
    "prefix": ("prefix.yaml",),
    "prefix, MLP": ("prefix.yaml", "--model.adaptation.mlp", "true", LR, "5e-3"),
    "soft prompt": ("prompt.yaml",),
    "p-tuning": ("prompt.yaml", "--model.adaptation", "adapt/p-tuning.yaml", LR, "5e-3"),
    "IA3": ("ia3.yaml",),
}


def measured(name: str, root: Path) -> str:
    """A run's line of the table."""
    config, *options = RUNS[name]
    run = root / name.replace(" ", "-")
    command = [sys.executable, "-m", "lit_fm", "fit", "--config", config, *options]
    done = subprocess.run(
        [*command, "--run.tracker", "none", "--run.root", str(run)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"| {name} | failed: {done.stderr.strip().splitlines()[-1:]} |"
    folder = next(run.glob("*/001"))
    about = json.loads((folder / "summary.json").read_text())
    size = sum(f.stat().st_size for part in ("adapter", "model") for f in (folder / part).glob("*.safetensors"))
    cells = (
        f"{about['exact_match']:.1%}",
        f"{about['learnable_parameters']:,}",
        f"{about['optimizer_steps']}",
        f"{about['peak_memory_bytes'] / 2**20:,.0f} MiB",
        f"{about['seconds']:.0f} s",
        f"{size:,}",
    )
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """All runs, or those named."""
    print("| adaptation | exact match | learnable parameters | steps | peak memory | time | bytes on disk |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for name in sys.argv[1:] or RUNS:
            print(measured(name, Path(root)), flush=True)


if __name__ == "__main__":
    main()
