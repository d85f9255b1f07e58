"""The bar and the lines of a training by transformers' Trainer."""

from contextlib import ExitStack
from typing import Any

from detectors.console import Screen
from detectors.training.batching import Pace

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # isort: skip


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar over all steps with loss and accuracy, and a line for each epoch."""

    def __init__(self, screen: Screen, pace: Pace) -> None:
        self._screen, self._pace = screen, pace
        self._stack = ExitStack()
        self._loss = float("nan")
        self._update: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Open the bar."""
        if state.global_step:
            self._screen.say(f"resuming at step {state.global_step} of {state.max_steps}")
        self._update = self._stack.enter_context(self._screen.bar("training", state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move the bar."""
        words = f"loss {self._loss:.3f}, accuracy {self._pace.accuracy:.0%}"
        self._update(state.global_step, words)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        """Take the loss for the bar."""
        self._loss = logs.get("loss", self._loss)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict[str, float], **_: Any
    ) -> None:
        """Print the epoch's line."""
        self._screen.say(
            f"epoch {round(state.epoch or 0)} of {args.num_train_epochs:.0f}: loss {self._loss:.3f}; validation: "
            f"loss {metrics['eval_loss']:.3f}, accuracy {metrics['eval_accuracy']:.1%}, "
            f"expected reward {metrics['eval_reward']:.2f}"
        )

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Close the bar."""
        self._stack.close()
