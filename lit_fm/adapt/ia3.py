"""(IA)3: learnt factors on keys, values, and the inner activations of feed-forward layers. Liu et al. 2022, equation 1.

They start at one, so that nothing changes at the start. Carried out by peft.
"""

from typing import Any

from lit_fm.adapt.layers import with_role
from lit_fm.adapt.tuner import Tuner, besides, check_targets


class IA3(Tuner):
    """A factor for each key, value and inner activation; for queries too, where one matrix makes all three.

    Args:
        targets: how names of linear layers end whose outputs are scaled; keys and values where nothing is said.
        feed_forward: how names of linear layers end whose inputs are scaled; the last of each feed-forward layer where
            nothing is said.
    """

    def __init__(self, targets: list[str] | None = None, feed_forward: list[str] | None = None) -> None:
        self.targets, self.feed_forward = targets, feed_forward

    def config(self, network: Any) -> Any:
        from peft import IA3Config

        outputs, inputs = self.targets, self.feed_forward
        if outputs is None:
            outputs = with_role(network, "keys and values")
        if inputs is None:
            inputs = with_role(network, "feed-forward output")
        check_targets(outputs, network)
        check_targets(inputs, network, "feed_forward")
        return IA3Config(
            task_type=self.task_type,
            target_modules=[*outputs, *inputs],
            feedforward_modules=inputs,
            **besides(self.new),
        )
