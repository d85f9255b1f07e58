"""A network and the average of its weights: the one learns, the other judges.

The last steps of a small network from scratch differ in what they get wrong; their mean is calmer. The average is made
of buffers, so checkpoints and the best epoch's weights hold it with the rest, and a resumed run has it again.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # isort: skip


class Averaged(nn.Module):  # type: ignore[misc]
    """Answers as the network while it trains, and as the average otherwise."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.average = deepcopy(model)
        for module in self.average.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, value.detach().clone())

    def forward(self, inputs: Tensor) -> Any:
        """Return what the network or the average returns."""
        return self.model(inputs) if self.training else self.average(inputs)

    def update(self, share: float) -> None:
        """Keep this share of the average, and take the rest from the network, running statistics included."""
        now = self.model.state_dict()
        with torch.no_grad():
            for name, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(now[name], 1 - share)
                else:
                    value.copy_(now[name])

    def settle(self) -> None:
        """Give the network the average's weights: the training is over."""
        self.model.load_state_dict(self.average.state_dict())


class Averaging(TrainerCallback):  # type: ignore[misc]
    """Updates the average after every step."""

    def __init__(self, network: Averaged, share: float) -> None:
        self._network, self._share = network, share

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the step in; the first ones count more, or the random start would stay in it for long."""
        self._network.update(min(self._share, state.global_step / (state.global_step + 9)))
