"""The recipes' networks, their seeds, and loading an exported student."""

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from test_channels import randomised

from merge_core.architectures import SHAPES, TORCHVISION, Shape, architectures_for
from merge_core.channels import check, trace
from merge_core.devices import generator
from merge_core.errors import RecipeError, StoreError
from merge_core.models import MODELS, build, load_student
from merge_core.presets import find_preset

USUAL = {
    "sine-mlp": ((1,), (1,)),
    "digits-cnn": ((1, 8, 8), (10,)),
    "patch-cnn": ((3, 32, 32), (12,)),
    "lenet": ((1, 28, 28), (10,)),
    "cifar-resnet20": ((3, 32, 32), (10,)),
    "cifar-resnet20-projection": ((3, 32, 32), (10,)),
    "cifar-vgg11": ((3, 32, 32), (10,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_seed_decides_every_weight_and_nothing_else_changes(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other = build(name, 3), build(name, 3), build(name, 4)
    assert torch.equal(before, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(next(first.parameters()), next(other.parameters()))
    inputs, outputs = USUAL[name]
    assert first(torch.zeros(2, *inputs)).shape == (2, *outputs)


@pytest.mark.parametrize("name", MODELS)
def test_own_networks_keep_the_laws(name: str) -> None:
    network = randomised(build(name, 1).double())
    example = torch.randn(2, *USUAL[name][0], generator=generator(0, "x"), dtype=torch.float64)
    assert check(network, trace(network, example), example).worst < 1e-12


def test_a_shortcut_without_parameters_keeps_every_second_position() -> None:
    """With the convolutions silent, stage 2 hands on stage 1's channels between zeros."""
    network = build("cifar-resnet20", 0).eval()
    block = network.get_submodule("layer2.0")
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert y.shape == (2, 32, 4, 4)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.parametrize("name", ["cifar-resnet20", "cifar-resnet20-projection", "patch-cnn"])
def test_gradients_of_images_stay_in_the_layout_of_the_images(name: str) -> None:
    """An operation that meets two layouts takes several times as long; pools over all may."""
    network = build(name, 0)
    images = torch.zeros(2, *USUAL[name][0]).to(memory_format=torch.channels_last)
    kept: list[bool] = []

    def watch(module: torch.nn.Module, given: tuple[torch.Tensor]) -> None:
        if given[0].requires_grad:
            given[0].register_hook(
                lambda gradient: kept.append(
                    gradient.is_contiguous(memory_format=torch.channels_last)
                )
            )

    convolutions = [each for each in network.modules() if isinstance(each, torch.nn.Conv2d)]
    for each in convolutions:
        each.register_forward_pre_hook(watch)
    network(images).sum().backward()
    assert kept == [True] * (len(convolutions) - 1)  # the first one reads the images


def test_the_cifar_resnet_has_the_published_number_of_weights() -> None:
    """He et al. 2016, table 6: 0.27 million in ResNet20."""
    plain, projected = (
        sum(p.numel() for p in build(name, 0).parameters())
        for name in ("cifar-resnet20", "cifar-resnet20-projection")
    )
    assert plain == 269_722
    assert projected == plain + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64


@pytest.mark.parametrize("data", [name for name in SHAPES if name != "sine"])
def test_own_networks_take_the_shape_that_they_are_offered(data: str) -> None:
    shape = SHAPES[data]
    fitting = [name for name in architectures_for(shape) if name in MODELS]
    assert fitting
    for name in fitting:
        images = torch.zeros(2, shape.channels, shape.side, shape.side)
        assert build(name, 0, shape).eval()(images).shape == (2, shape.classes)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="lenet"):
        build("resnet1", 0)


def test_every_torchvision_classifier_can_be_named() -> None:
    assert sorted(TORCHVISION) == sorted(torchvision.models.list_models(torchvision.models))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "vgg11_bn", "swin_t"])
def test_a_torchvision_network_takes_small_images(name: str) -> None:
    network = build(name, 0)
    assert network.training
    with torch.no_grad():
        assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 12)


def test_small_images_stay_large_behind_the_stem() -> None:
    network = build("resnet18", 0)
    stem = torch.nn.Sequential(*list(network.children())[:4])
    assert stem(torch.zeros(2, 3, 32, 32)).shape[-1] == 32


def test_larger_images_keep_torchvisions_stem() -> None:
    network = build("resnet18", 0, Shape(3, 64, 7))
    assert network.get_submodule("conv1").stride == (2, 2)
    assert network.eval()(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_a_network_for_larger_images_is_refused() -> None:
    with pytest.raises(RecipeError, match="32×32"):
        build("inception_v3", 0)


@pytest.mark.parametrize(
    ("recipe", "model"),
    [
        ("sine", "resnet18"),
        ("digits", "lenet"),
        ("photos", "sine-mlp"),
        ("mnist-lenet", "resnet18"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(recipe: str, model: str) -> None:
    with pytest.raises(RecipeError, match="fit"):
        find_preset(recipe, "quick").recipe.changed({"model": model})


def test_an_exported_student_loads(tmp_path) -> None:
    recipe = find_preset("digits", "quick").recipe
    network = build(recipe.model, 9)
    path = tmp_path / "student.safetensors"
    save_file(network.state_dict(), path, metadata={"recipe": recipe.to_json()})
    loaded = load_student(path)
    assert not loaded.training
    x = torch.ones(3, 1, 8, 8)
    assert torch.equal(loaded(x), network.eval()(x))


def test_files_that_hold_no_student_are_refused_in_one_sentence(tmp_path) -> None:
    recipe = find_preset("digits", "quick").recipe
    bare, wrong, junk = (tmp_path / f"{name}.safetensors" for name in ("bare", "wrong", "junk"))
    save_file({"a": torch.zeros(1)}, bare)
    save_file(build("lenet", 0).state_dict(), wrong, metadata={"recipe": recipe.to_json()})
    junk.write_bytes(b"\x80\x04junk")
    for path, words in (
        (bare, "no recipe"),
        (wrong, "do not fit"),
        (junk, "not a readable safetensors"),
        (tmp_path / "absent.safetensors", "no file"),
    ):
        with pytest.raises(StoreError, match=words) as caught:
            load_student(path)
        assert "\n" not in str(caught.value)
