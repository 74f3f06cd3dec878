"""Re-estimated batch-norm statistics against those computed directly."""

import pytest
import torch
from torch import nn

from merge_core.data import Split, augmentation
from merge_core.devices import generator
from merge_core.repair import has_norm_statistics, norms_reestimated


@pytest.fixture
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=0.3), nn.ReLU())
    net[1].get_buffer("running_mean").fill_(7.0)
    return net


@pytest.mark.parametrize("batch_size", [60, 20])
def test_statistics_are_the_mean_of_the_batches(network: nn.Sequential, batch_size: int) -> None:
    inputs = torch.randn(60, 1, 6, 6, generator=generator(0, "inputs"))
    split = Split(inputs, torch.zeros(60, dtype=torch.int64))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fresh = norms_reestimated(
        network, split, batch_size, augmentation("none"), generator(0, "draws")
    )
    convolution = network[0]
    with torch.no_grad():
        seen = [convolution(part).transpose(0, 1).flatten(1) for part in inputs.split(batch_size)]
    torch.testing.assert_close(
        fresh[1].get_buffer("running_mean"), torch.stack([s.mean(1) for s in seen]).mean(0)
    )
    torch.testing.assert_close(
        fresh[1].get_buffer("running_var"), torch.stack([s.var(1) for s in seen]).mean(0)
    )
    assert fresh[1].momentum == 0.3
    assert not fresh.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(fresh.get_parameter("0.weight"), network.get_parameter("0.weight"))


def test_networks_without_statistics_are_told_apart(network: nn.Sequential) -> None:
    assert has_norm_statistics(network)
    assert not has_norm_statistics(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)))
