"""Adaptations: which weights of a backbone learn, and which new ones are put in."""

from lit_fm.adapt.adalora import AdaLoRA
from lit_fm.adapt.base import Adaptation, Full
from lit_fm.adapt.bottleneck import Bottleneck
from lit_fm.adapt.delta import load_delta
from lit_fm.adapt.ia3 import IA3
from lit_fm.adapt.lora import LoRA
from lit_fm.adapt.peft import Peft
from lit_fm.adapt.prompt import Prefix, SoftPrompt
from lit_fm.adapt.select import Selective
from lit_fm.adapt.tuner import bits_of

__all__ = [
    "IA3",
    "AdaLoRA",
    "Adaptation",
    "Bottleneck",
    "Full",
    "LoRA",
    "Peft",
    "Prefix",
    "Selective",
    "SoftPrompt",
    "bits_of",
    "load_delta",
]
