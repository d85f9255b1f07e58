"""A network and the average of its weights."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

import torch
from torch import nn

from detectors.training import hf_model
from detectors.training.hf import trained
from detectors.training.trainer import AveragedNetwork, AverageUpdate
from tests.models import make_vit

from transformers import TrainerControl, TrainerState, TrainingArguments  # isort: skip


def network(share: float = 0.5) -> AveragedNetwork:
    torch.manual_seed(0)
    return AveragedNetwork(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), share)


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the names that the average had before it was an `AveragedModel`, which did not count."""
    state = {name.replace("average.module.", "average."): value for name, value in state.items()}
    return {name: value for name, value in state.items() if name != "average.n_averaged"}


def test_a_new_last_layer_is_no_news(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Transformers would advise to train the model that is about to be trained, whatever it is set to say else."""
    from transformers.utils import logging

    folder = make_vit(tmp_path / "vit", labels={0: "cat", 1: "dog", 2: "cow"}, hidden_size=16, num_hidden_layers=1)
    before = logging.get_verbosity()
    logging.set_verbosity_warning()
    logging.enable_propagation()
    try:
        hf_model.load(folder, 0)
        assert logging.get_verbosity() == logging.WARNING
    finally:
        logging.disable_propagation()
        logging.set_verbosity(before)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_the_network_learns_and_the_average_judges() -> None:
    both, inputs = network(), torch.ones(5, 3)
    before = both.eval()(inputs)
    both.train()
    nn.functional.mse_loss(both(inputs), torch.ones(5, 2)).backward()
    torch.optim.SGD(both.parameters(), 0.1).step()
    assert torch.equal(both.eval()(inputs), before)
    both.update()
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
    expected = both.model[0].weight.detach().clone()
    for step, kept in enumerate((1 / 10, 2 / 11, 3 / 12)):
        with torch.no_grad():
            both.model[0].weight.fill_(float(step))
        both.update()
        expected = expected * kept + step * (1 - kept)
    assert torch.allclose(both.average.module[0].weight, expected)
    assert not torch.allclose(expected, expected.mean())  # the start has its share


def test_an_average_under_its_old_names_is_read() -> None:
    both, inputs = network(), torch.ones(5, 3)
    with torch.no_grad():
        both.model[0].weight.add_(1)
    both.update()
    again = network()
    again.load_state_dict(old_names(trained(both)))
    assert torch.equal(again.eval()(inputs), both.eval()(inputs))


def test_the_average_counts_from_the_step_that_is_resumed_at() -> None:
    both = network()
    AverageUpdate(both).on_train_begin(TrainingArguments(use_cpu=True), TrainerState(global_step=41), TrainerControl())
    assert both.average.n_averaged == 42


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
