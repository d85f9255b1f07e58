"""A network and the average of its weights."""

import pytest

pytest.importorskip("transformers")

import torch
from torch import nn

from detectors.training.checkpoints import trained
from detectors.training.trainer import Averaged


def network(share: float = 0.5) -> Averaged:
    torch.manual_seed(0)
    return Averaged(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), share)


def test_the_network_learns_and_the_average_judges() -> None:
    both, inputs = network(), torch.ones(5, 3)
    before = both.eval()(inputs)
    both.train()
    nn.functional.mse_loss(both(inputs), torch.ones(5, 2)).backward()
    torch.optim.SGD(both.parameters(), 0.1).step()
    assert torch.equal(both.eval()(inputs), before)
    both.update()  # the first one takes all
    assert torch.equal(both(inputs), both.model(inputs))
    assert not torch.equal(both(inputs), before)


def test_an_update_keeps_its_share_of_weights_and_statistics() -> None:
    both = network(share=0.75)
    both.average.n_averaged.fill_(1000)  # long after the start, when less is kept
    with torch.no_grad():
        for value in (*both.model.parameters(), both.model[1].running_mean):
            value.fill_(1.0)
        for value in (*both.average.module.parameters(), *both.average.module.buffers()):
            value.zero_()
    both.model[1].num_batches_tracked += 7
    both.update()
    for name in ("0.weight", "1.bias", "1.running_mean"):
        assert torch.allclose(both.average.module.state_dict()[name], torch.tensor(0.25)), name
    assert both.average.module[1].num_batches_tracked == 7


def test_the_first_steps_count_more() -> None:
    both = network(share=0.999)
    for step in range(3):
        with torch.no_grad():
            both.model[0].weight.fill_(float(step))
        both.update()
    # At the second step 1/10 is kept, at the third 2/11.
    expected = (1 * 9 / 10) * 2 / 11 + 2 * 9 / 11
    assert torch.allclose(both.average.module[0].weight, torch.tensor(expected))


def test_what_is_kept_of_an_epoch_gives_the_average_back_and_in_the_end_the_network_has_it() -> None:
    both, inputs = network(), torch.ones(5, 3)
    with torch.no_grad():
        both.model[0].weight.add_(1)
    both.update()
    kept, said = trained(both), both.eval()(inputs)
    again = network()
    again.load_state_dict(kept, strict=False)
    assert torch.equal(again.eval()(inputs), said)
    again.settle()
    assert torch.equal(again.model(inputs), said)
    assert not any(value.requires_grad for value in again.average.module.state_dict(keep_vars=True).values())
