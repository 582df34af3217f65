"""The energy that a run takes, by the machine's own counters: of its processors (RAPL) and of its NVIDIA devices."""

import os
from pathlib import Path

SHARED = "LIT_FM_SHARED_MACHINE"
"""Set where other runs are at work beside this one: what the machine takes is then not this run's."""


class Meter:
    """Counts from when it is made.

    Args:
        before: joules that were counted elsewhere, of a run that goes on.
        powercap: where Linux keeps RAPL's counters.
    """

    def __init__(self, before: float = 0.0, powercap: str = "/sys/class/powercap") -> None:
        self.before, self.powercap = before, Path(powercap)
        self.begun = {} if os.environ.get(SHARED) else self._read()

    def joules(self) -> float | None:
        """So far; None where nothing can be measured."""
        if not self.begun:
            return None
        taken = 0.0
        for name, (now, wraps) in self._read().items():
            since = now - self.begun.get(name, (now, wraps))[0]
            taken += since + wraps if since < 0 else since  # counters begin anew
        return self.before + taken

    def _read(self) -> dict[str, tuple[float, float]]:
        """Of each counter its joules, and at how many it begins anew."""
        found = {}
        for folder in self.powercap.glob("intel-rapl:[0-9]*"):
            if folder.name.count(":") == 1:  # a package, not a part of one
                try:
                    now, most = (float((folder / name).read_text()) for name in ("energy_uj", "max_energy_range_uj"))
                except OSError:  # for root alone, on most machines
                    continue
                found[folder.name] = now / 1e6, most / 1e6
        return found | _devices()


def _devices() -> dict[str, tuple[float, float]]:
    try:
        import pynvml

        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return {str(i): (pynvml.nvmlDeviceGetTotalEnergyConsumption(d) / 1e3, 0.0) for i, d in enumerate(devices)}
    except Exception:  # no such package, driver, device or counter
        return {}
