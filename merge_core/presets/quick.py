"""The presets for a first look: on two processor cores they take minutes.

`cifar10-vgg11`, `cifar100-resnet20` and `imagewoof-resnet18` take about a quarter of an hour there;
`imagenet-resnet18` is for a GPU.
"""

from dataclasses import replace

from merge_core.presets.preset import Preset
from merge_core.recipes import Data, Gates, Recipe, Training

_TEXTURES = Data(name="textures", train=6000, heldout=1500, test=3000, noise=0.35, augment="none")
_PHOTOS = Data(
    name="photos", train=6000, heldout=1500, test=3000, augment="flips and quarter turns"
)
_PATCHES = Training(epochs=12, batch_size=128, learning_rate=0.1, weight_decay=0.003)

QUICK: tuple[Preset[Recipe], ...] = (
    Preset(
        recipe=Recipe(
            name="textures",
            preset="quick",
            data=_TEXTURES,
            model="patch-cnn",
            teacher=_PATCHES.over(12),
            gates=Gates(start=1.0, learning_rate=0.5),
            gating=_PATCHES.over(8),
            fine_tune=replace(_PATCHES, epochs=6, learning_rate=0.05),
        ),
        title="Textures",
        story="Generated gratings and crossed gratings under noise, 12 classes.",
    ),
    Preset(
        recipe=Recipe(
            name="photos",
            preset="quick",
            data=_PHOTOS,
            model="patch-cnn",
            teacher=_PATCHES.over(12),
            gates=Gates(start=1.0, learning_rate=0.5),
            gating=_PATCHES.over(8),
            fine_tune=replace(_PATCHES, epochs=6, learning_rate=0.05),
        ),
        title="Photographs",
        story="From which of 12 regions of two photographs does a patch come?",
    ),
    Preset(
        recipe=Recipe(
            name="digits",
            preset="quick",
            data=Data(name="digits", augment="none"),
            model="digits-cnn",
            teacher=Training(epochs=20, batch_size=64, learning_rate=0.1),
            gates=Gates(start=1.0, learning_rate=2.0),
            gating=Training(epochs=10, batch_size=64, learning_rate=0.1),
            fine_tune=Training(epochs=10, batch_size=64, learning_rate=0.05),
        ),
        title="Digits",
        story="Scikit-learn's 1,797 handwritten digits, 8×8 pixels.",
    ),
    Preset(
        recipe=Recipe(
            name="sine",
            preset="quick",
            data=Data(name="sine", train=10_000, heldout=2_000, test=10_000, noise=0.2),
            model="sine-mlp",
            teacher=Training(
                epochs=200, batch_size=128, learning_rate=0.02, rate="steps", milestones=(167,)
            ),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=100, batch_size=128, learning_rate=0.02, rate="constant"),
            fine_tune=Training(
                epochs=100, batch_size=128, learning_rate=0.02, rate="steps", milestones=(67,)
            ),
        ),
        title="Sine",
        story="Five sine waves with noise, fitted by one hidden layer: the paper's first problem.",
    ),
    Preset(
        recipe=Recipe(
            name="mnist-lenet",
            preset="quick",
            data=Data(name="mnist", train=10_000, heldout=2_000, test=10_000),
            model="lenet",
            teacher=Training(epochs=4, batch_size=64, learning_rate=0.05),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=64, learning_rate=0.05),
            fine_tune=Training(epochs=2, batch_size=64, learning_rate=0.02),
        ),
        title="MNIST, LeNet",
        story="Handwritten digits, 28×28 pixels; needs the data set on disk or a network.",
    ),
    Preset(
        recipe=Recipe(
            name="imagewoof-lenet",
            preset="quick",
            data=Data(name="imagewoof", side=28, augment="flips"),
            model="lenet",
            teacher=Training(epochs=20, batch_size=64, learning_rate=0.05),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=10, batch_size=64, learning_rate=0.05),
            fine_tune=Training(epochs=10, batch_size=64, learning_rate=0.02),
        ),
        title="Imagewoof, LeNet",
        story="Ten breeds of dogs, 28×28 pixels; needs imagewoof2-64 in the data directory.",
    ),
    Preset(
        recipe=Recipe(
            name="imagewoof-resnet18",
            preset="quick",
            data=Data(
                name="imagewoof", train=3000, heldout=600, test=1000, augment="flips and crops"
            ),
            model="resnet18",
            teacher=Training(epochs=4, batch_size=64, learning_rate=0.05),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=64, learning_rate=0.05),
            fine_tune=Training(epochs=2, batch_size=64, learning_rate=0.02),
        ),
        title="Imagewoof, ResNet18",
        story="Ten breeds of dogs, 64×64 pixels; needs imagewoof2-64 in the data directory.",
    ),
    Preset(
        recipe=Recipe(
            name="cifar100-resnet20",
            preset="quick",
            data=Data(
                name="cifar100", train=4000, heldout=1000, test=2000, augment="flips and shifts"
            ),
            model="cifar-resnet20",
            teacher=Training(epochs=4, batch_size=64, learning_rate=0.1),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=64, learning_rate=0.1),
            fine_tune=Training(epochs=2, batch_size=64, learning_rate=0.05),
        ),
        title="CIFAR-100, ResNet20",
        story="Some of the small photographs in 100 classes; needs the data set or a network.",
    ),
    Preset(
        recipe=Recipe(
            name="cifar10-vgg11",
            preset="quick",
            data=Data(
                name="cifar10", train=2000, heldout=500, test=1000, augment="flips and shifts"
            ),
            model="cifar-vgg11",
            teacher=Training(epochs=5, batch_size=64, learning_rate=0.02),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=64, learning_rate=0.02),
            fine_tune=Training(epochs=2, batch_size=64, learning_rate=0.01),
        ),
        title="CIFAR-10, VGG11",
        story="Some of the small photographs in 10 classes; needs the data set or a network.",
    ),
    Preset(
        recipe=Recipe(
            name="imagenet-resnet18",
            preset="quick",
            data=Data(
                name="images",
                source="imagenet",
                classes=1000,
                train=20_000,
                heldout=2_000,
                test=5_000,
                augment="flips and crops",
            ),
            model="resnet18",
            teacher=Training(epochs=4, batch_size=128, learning_rate=0.1, weight_decay=1e-4),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=2, batch_size=128, learning_rate=0.1, weight_decay=1e-4),
            fine_tune=Training(epochs=4, batch_size=128, learning_rate=0.07, weight_decay=1e-4),
        ),
        title="ImageNet, ResNet18",
        story="A part of ImageNet at 64×64 pixels, from a folder imagenet with train and val in "
        "the data directory; best on a GPU.",
    ),
    Preset(
        recipe=Recipe(
            name="images",
            preset="quick",
            data=Data(name="images", side=32, augment="flips"),
            model="cifar-resnet20",
            teacher=Training(epochs=10, batch_size=64, learning_rate=0.1, weight_decay=5e-4),
            gates=Gates(start=1.0, learning_rate=1.0),
            gating=Training(epochs=5, batch_size=64, learning_rate=0.1, weight_decay=5e-4),
            fine_tune=Training(epochs=5, batch_size=64, learning_rate=0.05, weight_decay=5e-4),
        ),
        title="Your own images",
        story="A folder images in the data directory in which each class has a folder, or what "
        "data.source names; data.classes says how many classes.",
    ),
)
