"""The training methods: which part of a network learns, and from which inputs.

Each is a class and a row of `registry.METHODS`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.photos.view_head import ViewHead
from detectors.preprocess import Preprocessing
from detectors.training import hf_model
from detectors.training.config import TrainConfig
from detectors.training.dataset import DataSet, FeatureExamples, PixelExamples, Views
from detectors.training.features import features_of
from detectors.training.job import Job, JobPlan, StopSignal
from detectors.training.trainer import AveragedNetwork, choose, choose_for_head


@dataclass(frozen=True)
class MethodInputs:
    """What a method has to begin with.

    Attributes:
        job: what to do.
        model: the network, loaded, with two classes.
        preprocessing: of its photos.
        data: the photos.
        photos: their sum.
        stopping: says when to end.
        chosen: what a run that goes on has chosen before.
    """

    job: Job
    model: nn.Module
    preprocessing: Preprocessing
    data: DataSet
    photos: str
    stopping: StopSignal
    chosen: JobPlan | None


class TrainingMethod(ABC):
    """One way to train a Hugging Face classifier.

    Attributes:
        loads_photos: whether the loop waits for photos, so that its waiting says something.
    """

    loads_photos = True

    @abstractmethod
    def prepare(self, inputs: MethodInputs) -> tuple[nn.Module, list[Any], JobPlan]:
        """Return what learns, the examples to learn from and those to validate on, and what was chosen by trying.

        Raises:
            StoppedEarly: it has to end before the examples are there.
        """

    def finish(self, network: nn.Module, model: nn.Module) -> nn.Module:
        """Return what is saved: the network, or the model with what was learnt in it."""
        return network

    def head(self, model: nn.Module, config: TrainConfig) -> ViewHead | None:
        """Return what is saved beside the finished model: a head on several views, if one was learnt."""
        return None


class PhotoMethod(TrainingMethod):
    """A method that learns from the photos themselves, in changed views."""

    @abstractmethod
    def network(self, inputs: MethodInputs) -> nn.Module:
        """Return what learns."""

    def prepare(self, inputs: MethodInputs) -> tuple[nn.Module, list[Any], JobPlan]:
        """Choose micro-batch, precision and loader processes by trying a few steps."""
        job, data, preprocessing = inputs.job, inputs.data, inputs.preprocessing
        network, views = self.network(inputs), Views(job.config.augment, job.config.seed)
        examples = [
            PixelExamples(data.train, views, preprocessing, plain=False, wanted=data.wanted),
            PixelExamples(data.val, views, preprocessing, plain=True),
        ]
        chosen = inputs.chosen
        if chosen is None:
            chosen = choose(job, network, examples[0], preprocessing.shape[1:], inputs.photos, len(data.val))
        return network, examples, chosen


class FullMethod(PhotoMethod):
    """Every weight learns, but for `frozen` layers; with `average`, their moving average judges and is kept."""

    def network(self, inputs: MethodInputs) -> nn.Module:
        """Return the network, or with its average."""
        hf_model.freeze(inputs.model, inputs.job.config.frozen)
        share = inputs.job.config.average
        return AveragedNetwork(inputs.model, share) if share else inputs.model

    def finish(self, network: nn.Module, model: nn.Module) -> nn.Module:
        """Take the average."""
        if isinstance(network, AveragedNetwork):
            network.settle()
        return model


class LoraMethod(PhotoMethod):
    """Low-rank adapters learn beside the frozen weights, and are merged into them at the end."""

    def network(self, inputs: MethodInputs) -> nn.Module:
        """Return the network with its adapters."""
        config = inputs.job.config
        return hf_model.with_adapters(inputs.model, config.lora_rank, config.seed)


class HeadMethod(TrainingMethod):
    """The last layer learns, from features that are computed once."""

    loads_photos = False

    def prepare(self, inputs: MethodInputs) -> tuple[nn.Module, list[Any], JobPlan]:
        """Compute the features, or read them from the cache."""
        job, data, chosen = inputs.job, inputs.data, inputs.chosen
        known = chosen.views if chosen is not None and chosen.views is not None else job.config.changed_views
        features = features_of(job, inputs.model, inputs.preprocessing, data, inputs.stopping, known)
        network = FeatureHead(features.train)
        judged = np.array([[photo.label] for photo in data.val], dtype=np.int64)
        wanted = data.wanted_of(Views(job.config.augment, job.config.seed), features.views + 1)
        examples = [FeatureExamples(features.train, wanted), FeatureExamples(features.val, judged)]
        width = features.train.shape[2]
        chosen = chosen or choose_for_head(job, network, width, inputs.photos, features.views, len(data.train))
        return network, examples, chosen

    def finish(self, network: nn.Module, model: nn.Module) -> nn.Module:
        """Put the layer into the model."""
        assert isinstance(network, FeatureHead)
        network.fold_into(hf_model.head_of(model))
        return model

    def head(self, model: nn.Module, config: TrainConfig) -> ViewHead | None:
        """Return the layer, if it has learnt from several views."""
        if config.head_views is None:
            return None
        layer = hf_model.head_of(model)
        return ViewHead(config.head_views, layer.weight.detach().numpy(), layer.bias.detach().numpy())


class FeatureHead(nn.Module):  # type: ignore[misc]
    """A linear layer on features that are brought to mean 0 and spread 1 first, so that one learning rate suits all."""

    def __init__(self, features: NDArray[np.float32]) -> None:
        super().__init__()
        flat = torch.from_numpy(features).flatten(0, 1)
        self.register_buffer("mean", flat.mean(0))
        self.register_buffer("spread", flat.std(0).clamp_min(1e-4))
        self.linear = nn.Linear(flat.shape[1], len(hf_model.LABELS))
        nn.init.zeros_(self.linear.weight)  # the problem is convex: no luck is needed
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.linear((features - self.mean) / self.spread)
        return logits

    def fold_into(self, layer: nn.Linear) -> None:
        """Write the layer that gives the same logits from the features as they come."""
        with torch.no_grad():
            layer.weight.copy_(self.linear.weight / self.spread)
            layer.bias.copy_(self.linear.bias - layer.weight @ self.mean)
