"""Torch-Pruning's dependency groups as an independent oracle for the channel spaces."""

import pytest
import torch
import torch_pruning as pruning
from torch import nn
from torchvision import models

from merge_core.channels import trace


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["resnet18", "vgg11_bn", "mobilenet_v2", "densenet121"])
def test_spaces_are_the_dependency_groups(family: str) -> None:
    model = getattr(models, family)(weights=None).eval()
    example = torch.randn(1, 3, 64, 64)
    spaces = trace(model, example).free
    dependencies = pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    names = {module: name for name, module in model.named_modules()}
    found = 0
    for space in spaces:
        layer = model.get_submodule(space.writers[0])
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        kind = "conv" if isinstance(layer, nn.Conv2d) else "linear"
        prune = getattr(pruning, f"prune_{kind}_out_channels")
        group = dependencies.get_pruning_group(layer, prune, idxs=[0])
        theirs = {
            names[item.dep.target.module] for item in group if item.dep.target.module in names
        }
        ours = {*space.writers, *space.through, *space.readers}
        assert theirs == ours, space.name
        found += 1
    assert found > 5
