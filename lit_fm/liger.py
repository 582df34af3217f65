"""Liger's fused kernels for norms, rotary positions and gated MLPs, on GPUs: fewer passes over memory, fewer activations
kept. Hsu et al. 2024, "Liger Kernel". The loss stays ours, which makes logits only where there is a label."""

from typing import Any


def use_liger(network: Any, device: str) -> None:
    """Switch a network, before it is adapted, to them. A plan's, without numbers, stays as it is.

    Args:
        device: where it will compute.

    Raises:
        ValueError: no GPU, no package, or an architecture that Liger has no kernels for.
    """
    from transformers.utils import is_liger_kernel_available

    if network.device.type == "meta":
        return
    if not device.startswith("cuda"):
        raise ValueError(f"model.liger: its kernels need a GPU, and the trainer computes on {device}: leave it out.")
    if not is_liger_kernel_available():
        raise ValueError("model.liger needs the package liger-kernel: pip install liger-kernel.")
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = network.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
        raise ValueError(f"model.liger: there are no kernels for {kind}, only for {known}: leave it out.")
    _apply_liger_kernel_to_instance(model=network, cross_entropy=False, fused_linear_cross_entropy=False)
