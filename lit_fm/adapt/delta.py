"""What learnt, by name, beside the name of the backbone: the format of adaptations that peft has no tuner for."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lit_fm.adapt.base import Adaptation

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def save_delta(adaptation: Adaptation, network: Any, folder: Path, base: str) -> None:
    """Write the weights that learn, and the adaptation that says what they are. `base`: what the backbone is called."""
    folder.mkdir(parents=True, exist_ok=True)
    learns = {n: p.detach().cpu().contiguous() for n, p in network.named_parameters() if p.requires_grad}
    save_file(learns, folder / WEIGHTS, {"format": "pt"})
    about: dict[str, Any] = {"lit_fm_adaptation": type(adaptation).__name__}
    about |= {"settings": adaptation.settings, "task_type": adaptation.task_type, "new": list(adaptation.new)}
    about |= {"new_tokens": list(adaptation.new_tokens)}
    (folder / CONFIG).write_text(json.dumps({**about, "base_model_name_or_path": base}, indent=2) + "\n")


def load_delta(adaptation: Adaptation, network: Any, folder: Path) -> Any:
    """The network as it was when `save_delta` wrote it.

    Raises:
        ValueError: the weights are not those that the adaptation puts into this network.
    """
    about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    made = adaptation.apply(network, about["task_type"], about["new"], about["new_tokens"])
    weights = load_file(folder / WEIGHTS)
    parameters = dict(made.named_parameters())
    unlike = [
        name for name, weight in weights.items() if name not in parameters or parameters[name].shape != weight.shape
    ]
    if unlike:
        raise ValueError(f"{folder} does not fit this backbone: it has no weight {unlike[0]} of this shape.")
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[name].copy_(weight)
    return made
