"""Devices that a run may be planned for: memory, speed, power, price."""

import time
from dataclasses import dataclass
from typing import Any

from lit_fm.nearest import did_you_mean

GIB = 2**30
RESERVE = 0.06
"""The share of a device's memory that its driver, libraries and fragments of freed memory take, about."""


@dataclass(frozen=True)
class Device:
    """By its maker's data sheet.

    Args:
        memory: GiB.
        half, single: TFLOPS dense in 16 bits, and in float32 (TF32 where the device has it).
        watts: at full load.
        price: dollars an hour, about what it was to rent in 2026; change it to yours.
    """

    name: str
    memory: float
    half: float
    single: float
    watts: float
    price: float

    @property
    def room(self) -> int:
        """Bytes that tensors may take."""
        return int(self.memory * GIB * (1 - RESERVE))

    def peak(self, precision: str) -> float:
        """FLOPs a second."""
        return 1e12 * (self.single if precision.startswith(("32", "64")) else self.half)


DEVICES = {
    device.name: device
    for device in (
        Device("v100", 32, 125, 15.7, 300, 0.6),
        Device("a100-40", 40, 312, 156, 400, 1.2),
        Device("a100-80", 80, 312, 156, 400, 1.6),
        Device("h100", 80, 989, 494, 700, 2.5),
        Device("h200", 141, 989, 494, 700, 3.3),
        Device("rtx3090", 24, 71, 35.6, 350, 0.2),
        Device("rtx4090", 24, 165, 82.6, 450, 0.4),
    )
}


def find_device(name: str) -> Device:
    """A device by its name; `cpu` is this machine, measured.

    Raises:
        ValueError: there is none of that name.
    """
    if name == "cpu":
        return this_cpu()
    if name not in DEVICES:
        raise ValueError(f"--device: there is no {name!r}: {did_you_mean(name, [*DEVICES, 'cpu'])}")
    return DEVICES[name]


def this_cpu() -> Device:
    """Its speed in a product of matrices, and the memory that is free now."""
    import psutil
    import torch

    free = psutil.virtual_memory().available / GIB
    half, single = (speed("cpu", dtype) / 1e12 for dtype in (torch.bfloat16, torch.float32))
    return Device("this cpu", round(free, 1), half, single, 0, 0)


def speed(device: Any, dtype: Any) -> float:
    """FLOPs a second in products of large matrices: the best of many, since others on the machine slow most of them."""
    import torch

    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    best, end = 0.0, time.perf_counter() + 0.5
    for size, least in ((512, 20), (1024, 5)) if torch.device(device).type == "cpu" else ((4096, 20), (8192, 5)):
        one = torch.randn(size, size, dtype=dtype, device=device)
        while least > 0 or time.perf_counter() < end:
            begun, least = time.perf_counter(), least - 1
            one @ one
            wait()
            best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best


def others() -> float:
    """CPU seconds that the machine has spent until now on anything but this process and those that it started."""
    import psutil

    spent, me = psutil.cpu_times(), psutil.Process()
    own = sum(sum(one.cpu_times()[:2]) for one in (me, *me.children(recursive=True)))
    idle = spent.idle + sum(getattr(spent, name, 0.0) for name in ("iowait", "guest", "guest_nice", "steal"))
    return sum(spent) - idle - own


def memory_of(device: Any) -> int:
    """Bytes that are free there now."""
    import psutil
    import torch

    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
