"""Batches in parts."""

import io

import pytest
from rich.console import Console

pytest.importorskip("torch")

import torch

from detectors.training.machine import GB, Reading
from detectors.training.micro import MicroBatches, Pace, WeightedLoss, gradients
from detectors.training.screen import Screen


def calm() -> Reading:
    return Reading(resident=GB, available=8 * GB, memory=16 * GB)


def tight() -> Reading:
    return Reading(resident=GB, available=GB, memory=16 * GB)


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


def test_near_the_limit_it_halves_before_it_fails() -> None:
    now = 0.0
    parts = MicroBatches(8, tight, screen(), clock=lambda: now)
    for moment, size in ((0.0, 4), (0.1, 4), (1.0, 2), (2.0, 1), (3.0, 1)):  # a look at the memory now and then
        now = moment
        parts.over(8, lambda _: None, lambda: None)
        assert parts.size == size


def test_what_is_no_lack_of_memory_is_raised() -> None:
    def work(_: slice) -> None:
        raise RuntimeError("shapes differ")

    parts = MicroBatches(8, calm, screen())
    with pytest.raises(RuntimeError, match="shapes differ"):
        parts.over(8, work, lambda: None)
    assert parts.size == 8
