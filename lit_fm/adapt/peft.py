"""Any other of peft's tuners, by its configuration."""

from typing import Any

from lit_fm.adapt.tuner import Tuner, besides, check_targets
from lit_fm.nearest import did_you_mean


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
        self._class, given = known[kind], {name: value for name, value in config.items() if name != "peft_type"}
        fields = self._class.__dataclass_fields__
        for name in given:
            if name not in fields:
                raise ValueError(f"adaptation.config: {kind} has no setting {name!r}: {did_you_mean(name, fields)}")
        self._given, self._kind = given, kind
        self._config = config

    @property
    def settings(self) -> dict[str, Any]:
        return {"config": self._config}

    def config(self, network: Any) -> Any:
        targets = self._given.get("target_modules")
        if isinstance(targets, list):
            check_targets(targets, network, "config.target_modules")
        fields = self._class.__dataclass_fields__
        more = {name: value for name, value in besides(self.new).items() if name in fields}
        if self.new and "modules_to_save" not in fields:
            raise ValueError(f"adaptation: {self._kind} cannot learn a new head beside it: use LoRA.")
        return self._class(**{"task_type": self.task_type, **more, **self._given})
