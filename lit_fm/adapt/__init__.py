"""Adaptations: which weights of a backbone learn, and which new ones are put in."""

from lit_fm.adapt.base import Adaptation, Full
from lit_fm.adapt.lora import LoRA

__all__ = ["Adaptation", "Full", "LoRA"]
