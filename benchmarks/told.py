"""What lit_fm trained on, told to `speed.py` by a callback."""

import lightning as L
from stamps import tell


class Told(L.Callback):
    """Tokens of each batch, and its loss."""

    def on_train_start(self, trainer, pl_module):
        self.tokens, self.losses = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.tokens.append(batch["tokens"])
        self.losses.append(float(outputs["loss"]) / len(batch["targets"]))

    def on_train_end(self, trainer, pl_module):
        tell(self.tokens, self.losses)
