"""A network and the average of its weights."""

import pytest

pytest.importorskip("transformers")

import torch
from torch import nn

from detectors.training.checkpoints import trained
from detectors.training.trainer import Averaged


def network() -> Averaged:
    torch.manual_seed(0)
    return Averaged(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))


def test_the_network_learns_and_the_average_judges() -> None:
    both, inputs = network(), torch.ones(5, 3)
    before = both.eval()(inputs)
    both.train()
    nn.functional.mse_loss(both(inputs), torch.ones(5, 2)).backward()
    torch.optim.SGD(both.parameters(), 0.1).step()
    assert torch.equal(both.eval()(inputs), before)
    both.update(0.0)
    assert torch.equal(both(inputs), both.model(inputs))
    assert not torch.equal(both(inputs), before)


def test_an_update_keeps_its_share_of_weights_and_statistics() -> None:
    both = network()
    with torch.no_grad():
        for value in (*both.model.parameters(), both.model[1].running_mean):
            value.fill_(1.0)
        for _, value in both.average.named_buffers():
            if value.is_floating_point():
                value.fill_(0.0)
    both.model[1].num_batches_tracked += 7
    both.update(0.75)
    for name in ("0.weight", "1.bias", "1.running_mean"):
        assert torch.allclose(both.average.state_dict()[name], torch.tensor(0.25)), name
    assert both.average[1].num_batches_tracked == 7


def test_what_is_kept_of_an_epoch_gives_the_average_back_and_in_the_end_the_network_has_it() -> None:
    both, inputs = network(), torch.ones(5, 3)
    with torch.no_grad():
        both.model[0].weight.add_(1)
    both.update(0.5)
    kept, said = trained(both), both.eval()(inputs)
    again = network()
    again.load_state_dict(kept, strict=False)
    assert torch.equal(again.eval()(inputs), said)
    again.settle()
    assert torch.equal(again.model(inputs), said)
    assert not any(value.requires_grad for value in again.average.state_dict(keep_vars=True).values())
