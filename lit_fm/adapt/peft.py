"""Any other of peft's tuners, by its configuration."""

import re
from typing import Any

from lit_fm.adapt.tuner import Tuner, besides, check_targets
from lit_fm.nearest import did_you_mean

OWN = {
    "ADALORA": "AdaLoRA",
    "PROMPT_TUNING": "SoftPrompt",
    "P_TUNING": "SoftPrompt",
    "MULTITASK_PROMPT_TUNING": "SoftPrompt",
    "PREFIX_TUNING": "Prefix",
}
"""Tuners that need more than peft's configuration: hooks in training, room in the context."""
REFUSED = {
    "POLY": "it wants the number of a task with each row",
    "XLORA": "it mixes adapters that have learnt already",
}


class Peft(Tuner):
    """A tuner of peft that has no class of its own here.

    Args:
        config: what peft's `adapter_config.json` holds: `peft_type` (`LOHA`, `VERA`, `OFT`, ...) and the tuner's settings.

    Raises:
        ValueError: peft has no such tuner, or the tuner no such setting.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING

        known = {kind.value: made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
        kind = str(config.get("peft_type", "")).upper()
        if kind not in known:
            raise ValueError(
                f"adaptation.config: peft has no tuner {kind!r}: {did_you_mean(kind, known)} Say peft_type."
            )
        if own := OWN.get(kind):
            raise ValueError(f"adaptation.config: {kind} has a class of its own here: use lit_fm.{own}.")
        if why := REFUSED.get(kind):
            raise ValueError(f"adaptation.config: {kind} is not trained here: {why}. Use lit_fm.LoRA.")
        if config.get("init_lora_weights") == "loftq":
            raise ValueError(
                "adaptation.config: loftq rounds the backbone, and no export holds that: use LoRA with bits."
            )
        self._class, given = known[kind], {name: value for name, value in config.items() if name != "peft_type"}
        fields = self._class.__dataclass_fields__
        for name in given:
            if name not in fields:
                raise ValueError(f"adaptation.config: {kind} has no setting {name!r}: {did_you_mean(name, fields)}")
        self._given, self._kind = given, kind
        self.virtual_tokens = given.get("num_virtual_tokens") or len(given.get("cpt_token_ids") or ())
        if self.virtual_tokens or kind == "ADAPTION_PROMPT":
            self.unmergeable = "its vectors stand before the text, or in attention: they are in no matrix"
        self._config = config

    @property
    def settings(self) -> dict[str, Any]:
        return {"config": self._config}

    def config(self, network: Any) -> Any:
        targets = self._given.get("target_modules")
        if isinstance(targets, list):
            check_targets(targets, network, "config.target_modules")
        for name in ("rank_pattern", "alpha_pattern"):
            check_targets(list(self._given.get(name) or ()), network, f"config.{name}")
        self._check_tied(network)
        fields = self._class.__dataclass_fields__
        more = {name: value for name, value in besides(self.new).items() if name in fields}
        if self.new and "modules_to_save" not in fields:
            raise ValueError(f"adaptation: {self._kind} cannot learn a new head beside it: use LoRA.")
        return self._class(**{"task_type": self.task_type, **more, **self._given})

    def _check_tied(self, network: Any) -> None:
        """Refuse modules that do not exist, and what would part two tied matrices.

        Raises:
            ValueError: with the name.
        """
        modules, head = dict(network.named_modules()), network.get_output_embeddings()
        tables = {id(network.get_input_embeddings()), id(head)}
        tied = head is not None and head.weight is network.get_input_embeddings().weight
        targets = self._given.get("target_modules")
        pattern = targets if isinstance(targets, str) and targets != "all-linear" else None
        for name in self._given.get("modules_to_save") or ():
            if not any(known == name or known.endswith(f".{name}") for known in modules):
                raise ValueError(f"adaptation.config.modules_to_save: there is no module {name!r}: correct it.")
        kept = tuple(f".{name}" for name in self._given.get("modules_to_save") or ())
        for name, module in modules.items():
            asked = (pattern and re.fullmatch(pattern, name)) or (kept and f".{name}".endswith(kept))
            if tied and asked and id(module) in tables:
                raise ValueError(f"adaptation.config: {name} shares its matrix with another module: leave it out.")
