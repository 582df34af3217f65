"""What lit_fm trained on, told to `speed.py` by a callback."""

import lightning as L
from stamps import tell


class Told(L.Callback):
    """Tokens of each optimizer step, and its loss."""

    def on_train_start(self, trainer, pl_module):
        self.tokens, self.losses, self.window = [], [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.window += batch["tokens"]
        if trainer.global_step > len(self.losses):
            self.losses.append(trainer.callback_metrics["train/loss"].item())
            self.tokens.append(self.window)
            self.window = 0

    def on_train_end(self, trainer, pl_module):
        tell(self.tokens, self.losses)
