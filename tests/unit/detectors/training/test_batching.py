"""Batches in parts."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("torch")

import torch

from detectors.console import Screen
from detectors.training.batching import MicroBatches, Pace, WeightedLoss, gradients, make_loss
from detectors.training.budget import GB, MachineReading, fitting
from detectors.training.config import TrainConfig
from detectors.training.trainer import measure_step


def calm() -> MachineReading:
    return MachineReading(resident=GB, available=8 * GB, memory=16 * GB)


def tight() -> MachineReading:
    return MachineReading(resident=GB, available=GB, memory=16 * GB)


def screen() -> Screen:
    return Screen(Console(file=io.StringIO()))


def test_parts_add_up_to_the_batch() -> None:
    torch.manual_seed(0)
    pictures, labels = torch.randn(10, 4), torch.tensor([0, 1, 1, 0, 0, 0, 1, 0, 0, 0])
    loss = WeightedLoss(torch.tensor([0.7, 1.6]), smoothing=0.1)
    found = []
    for size in (10, 3, 1):
        model = torch.nn.Linear(4, 2)
        with torch.no_grad():
            model.weight.copy_(torch.arange(8.0).reshape(2, 4) / 8)
            model.bias.zero_()
        parts = MicroBatches(size, calm, screen())
        total = gradients(
            model, lambda part, model=model: model(pictures[part]), labels, loss, parts, Pace(), torch.Tensor.backward
        )
        found.append((float(total), model.weight.grad))
    plain = torch.nn.functional.cross_entropy(
        pictures @ (torch.arange(8.0).reshape(2, 4) / 8).T, labels, torch.tensor([0.7, 1.6]), label_smoothing=0.1
    )
    for value, gradient in found:
        assert value == pytest.approx(float(plain), abs=1e-6)
        assert torch.allclose(gradient, found[0][1], atol=1e-6)


def test_where_an_allocation_fails_the_batch_begins_again_in_halves() -> None:
    parts, done, undone = MicroBatches(8, calm, screen()), [], []

    def work(part: slice) -> None:
        if part.stop - part.start > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        done.append(part)

    parts.over(7, work, lambda: (done.clear(), undone.append(1)))  # type: ignore[func-returns-value]
    assert parts.size == 2
    assert done == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert len(undone) == 2


def test_a_batch_is_not_cut_twice_where_a_look_had_halved_it_before_the_allocation_failed() -> None:
    parts, done = MicroBatches(2, tight, screen()), []

    def work(part: slice) -> None:
        parts.look()
        if part.stop - part.start > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        done.append(part)

    parts.over(2, work, done.clear)
    assert (parts.size, done) == (1, [slice(0, 1), slice(1, 2)])


class Held:
    """Memory that is short only while activations are held: after a way forward, before the way back."""

    def __init__(self, most: int) -> None:
        self.most, self.photos = most, 0
        self.sizes: list[int] = []

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        self.photos = len(pictures)
        self.sizes.append(self.photos)
        held = pictures * 1.0
        held.register_hook(lambda _: setattr(self, "photos", 0))
        return held

    def __call__(self) -> MachineReading:
        return tight() if self.photos > self.most else calm()


def test_near_the_limit_it_halves_from_the_next_part_on() -> None:
    held, model = Held(most=2), torch.nn.Linear(4, 2)
    parts = MicroBatches(8, held, screen())
    pictures, labels = torch.randn(16, 4), torch.tensor([0, 1] * 8)
    loss = WeightedLoss(torch.ones(2), smoothing=0.0)

    def logits(part: slice) -> torch.Tensor:
        scores: torch.Tensor = model(pictures[part])
        return held.forward(scores)

    total = gradients(model, logits, labels, loss, parts, Pace(), torch.Tensor.backward)
    assert held.sizes == [8, 4, 2, 2]
    whole = torch.nn.functional.cross_entropy(model(pictures), labels).detach()
    assert float(total) == pytest.approx(float(whole), abs=1e-6)


def test_a_limit_lowered_between_two_parts_is_seen_before_the_next_one() -> None:
    """In a cgroup nothing fails: a part that takes more than there is gets the process killed."""
    limit, photos = 10.0, 0
    sizes: list[int] = []

    def probe() -> MachineReading:
        taken = 1 + photos / 2
        return MachineReading(resident=taken * GB, available=(limit - taken) * GB, memory=limit * GB)

    parts = MicroBatches(8, probe, screen())

    def work(part: slice) -> None:
        nonlocal limit, photos
        photos = part.stop - part.start
        sizes.append(photos)
        assert probe().available >= 0, "killed"
        parts.look()
        photos = 0
        limit = 2.5  # for three photos

    parts.over(16, work, lambda: None)
    assert sizes == [8, 2, 2, 2, 2]


def test_memory_is_looked_at_now_and_then() -> None:
    moments, looks = iter((0.0, 0.0, 0.0, 0.1, 1.0, 1.0, 1.2)), []

    def read() -> MachineReading:
        looks.append(1)
        return calm()

    parts = MicroBatches(8, read, screen(), clock=lambda: next(moments))
    for expected in (1, 1, 2, 2):
        parts.look()
        assert len(looks) == expected


def test_the_first_micro_batch_is_one_whose_step_leaves_memory_free_in_its_middle() -> None:
    class Network(torch.nn.Linear):
        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            return held.forward(super().forward(pictures))

    held, said = Held(most=3), screen()
    model = Network(4, 2)
    size, seconds = fitting(lambda size, look: measure_step(model, (4,), size, "fp32", look), 8, held, said)
    assert (size, held.sizes) == (2, [1, 1, 2, 2, 8, 4, 2, 2])
    assert seconds > 0
    assert model.weight.grad is None


def test_a_micro_batch_that_would_get_the_process_killed_is_not_tried() -> None:
    photos, tried = 0, []

    def probe() -> MachineReading:
        taken = 1 + photos / 2
        return MachineReading(resident=taken * GB, available=(4.5 - taken) * GB, memory=4.5 * GB)

    def measure(size: int, look: Callable[[], None]) -> float:
        nonlocal photos
        photos = size
        tried.append(size)
        assert probe().available >= 0, "killed"
        try:
            look()
        finally:
            photos = 0
        return 0.1

    said = io.StringIO()
    assert fitting(measure, 16, probe, Screen(Console(file=said))) == (4, 0.1)
    assert tried == [1, 2, 4]
    assert "a micro-batch of 16 would not fit" in said.getvalue()


def test_what_is_no_lack_of_memory_is_raised() -> None:
    def work(_: slice) -> None:
        raise RuntimeError("shapes differ")

    parts = MicroBatches(8, calm, screen())
    with pytest.raises(RuntimeError, match="shapes differ"):
        parts.over(8, work, lambda: None)
    assert parts.size == 8


def test_drawn_works_count_among_those_that_classes_are_balanced_by() -> None:
    wanted = np.array([0, 0, 1, 1])
    even = TrainConfig.make({"data": "photos"})
    drawn = TrainConfig.make({"data": "photos", "augment": {"works": 0.5}})
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 1, 1, 1])
    assert make_loss(wanted, even)._weights.tolist() == [1, 1]
    expected = make_loss(labels.numpy(), even)
    found = make_loss(wanted, drawn)
    assert found._weights.tolist() == expected._weights.tolist()
    assert found.share(logits, labels, labels) == expected.share(logits, labels, labels)


def test_a_screen_shows_no_loss_before_the_first_batch() -> None:
    pace = Pace()
    assert str(pace) == ""
    pace.saw(right=3, count=4, loss=0.6)
    assert str(pace) == "loss 0.600, accuracy 75%"
