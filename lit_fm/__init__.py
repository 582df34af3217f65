"""lit_fm: a PyTorch Lightning project template for pre-training and fine-tuning foundation models.

The public names below are imported when first used, so that `import lit_fm` does not import torch.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_fm.adapt import IA3 as IA3
    from lit_fm.adapt import AdaLoRA as AdaLoRA
    from lit_fm.adapt import Adaptation as Adaptation
    from lit_fm.adapt import Bottleneck as Bottleneck
    from lit_fm.adapt import Full as Full
    from lit_fm.adapt import LoRA as LoRA
    from lit_fm.adapt import Peft as Peft
    from lit_fm.adapt import Prefix as Prefix
    from lit_fm.adapt import Selective as Selective
    from lit_fm.adapt import SoftPrompt as SoftPrompt
    from lit_fm.data.corpus import TextCorpus as TextCorpus
    from lit_fm.data.instruct import InstructionData as InstructionData
    from lit_fm.data.mixture import Mixture as Mixture
    from lit_fm.objectives.base import Objective as Objective
    from lit_fm.objectives.causal import CausalLM as CausalLM
    from lit_fm.objectives.classify import SequenceClassification as SequenceClassification
    from lit_fm.objectives.denoise import Denoising as Denoising
    from lit_fm.objectives.masked import MaskedLM as MaskedLM
    from lit_fm.objectives.span import SpanCorruption as SpanCorruption
    from lit_fm.objectives.tag import TokenClassification as TokenClassification
    from lit_fm.sharded import Sharded as Sharded

_ADAPTATIONS = ("Full", "Selective", "LoRA", "AdaLoRA", "Bottleneck", "SoftPrompt", "Prefix", "IA3", "Peft")
_PUBLIC = {
    "Adaptation": "lit_fm.adapt",
    **dict.fromkeys(_ADAPTATIONS, "lit_fm.adapt"),
    "Objective": "lit_fm.objectives.base",
    "CausalLM": "lit_fm.objectives.causal",
    "MaskedLM": "lit_fm.objectives.masked",
    "SpanCorruption": "lit_fm.objectives.span",
    "Denoising": "lit_fm.objectives.denoise",
    "SequenceClassification": "lit_fm.objectives.classify",
    "TokenClassification": "lit_fm.objectives.tag",
    "InstructionData": "lit_fm.data.instruct",
    "Mixture": "lit_fm.data.mixture",
    "TextCorpus": "lit_fm.data.corpus",
    "Sharded": "lit_fm.sharded",
}
__all__ = [
    "IA3",
    "AdaLoRA",
    "Adaptation",
    "Bottleneck",
    "CausalLM",
    "Denoising",
    "Full",
    "InstructionData",
    "LoRA",
    "MaskedLM",
    "Mixture",
    "Objective",
    "Peft",
    "Prefix",
    "Selective",
    "SequenceClassification",
    "Sharded",
    "SoftPrompt",
    "SpanCorruption",
    "TextCorpus",
    "TokenClassification",
]

_PACKAGE = Path(__file__).resolve().parent
SHARE = _PACKAGE / "_share" if (_PACKAGE / "_share").is_dir() else _PACKAGE.parent
"""Where `configs/` and `zoo/` are: inside an installed package, or beside the package in a clone."""


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'lit_fm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
