"""The laws on every classification family of torchvision, in both modes, on random weights."""

import pytest
import torch
from test_channels import randomised
from torchvision import models

from merge_core.channels import check, concatenate, select, trace

SMALL = {
    "alexnet": (64, {}), "vgg11_bn": (64, {}), "resnet18": (64, {}), "wide_resnet50_2": (64, {}),
    "resnext50_32x4d": (64, {}), "densenet121": (64, {}), "squeezenet1_1": (64, {}),
    "googlenet": (64, {"init_weights": False}), "inception_v3": (128, {"init_weights": False}),
    "mobilenet_v2": (64, {}), "mobilenet_v3_small": (64, {}), "efficientnet_b0": (64, {}),
    "efficientnet_v2_s": (64, {}), "mnasnet0_5": (64, {}), "regnet_x_400mf": (64, {}),
    "regnet_y_400mf": (64, {}), "shufflenet_v2_x0_5": (64, {}), "convnext_tiny": (64, {}),
    "vit_b_32": (64, {"image_size": 64}), "swin_t": (64, {}), "swin_v2_t": (64, {}),
    "maxvit_t": (224, {}),
}  # fmt: skip
HUGE = {"alexnet", "vgg11_bn", "vit_b_32"}  # in float32


@pytest.mark.parametrize("family", SMALL)
def test_laws(family: str) -> None:
    size, arguments = SMALL[family]
    torch.manual_seed(0)
    model = getattr(models, family)(weights=None, num_classes=7, **arguments)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.data.copy_(0.5 + noise)
            elif tensor.dim() < 2 or not tensor.detach().any():
                tensor.data.add_(0.2 * (noise - 0.3))
    example = torch.randn(1 if family == "maxvit_t" else 2, 3, size, size)
    if family not in HUGE:
        model, example = model.double(), example.double()
    graph = trace(model, example)
    errors = check(model, graph, example)
    assert errors.worst < (1e-5 if family in HUGE else 1e-12), errors


@pytest.mark.parametrize("family", ["resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t"])
def test_the_half_cut_is_a_plain_teacher(family: str) -> None:
    """Cut to half, the student has the teacher's shapes and its state loads into a fresh one."""
    size, arguments = SMALL[family]
    torch.manual_seed(0)
    model = randomised(getattr(models, family)(weights=None, num_classes=3, **arguments))
    example = torch.randn(2, 3, size, size)
    graph = trace(model, example)
    big = concatenate([model, model], graph)
    generator = torch.Generator().manual_seed(2)
    kept = {
        space.name: torch.randperm(2 * space.size, generator=generator)[: space.size]
        for space in graph.free
    }
    student = select(big, trace(big, example), kept).eval()
    fresh = getattr(models, family)(weights=None, num_classes=3, **arguments).eval()
    fresh.load_state_dict(student.state_dict())
    torch.testing.assert_close(fresh(example), student(example), equal_nan=True)
