"""The paper's own settings, as its code has them where the paper does not say.

What is changed: a tenth of the training images is held out, because the paper chose by test scores;
learning rates and gates follow `merge_core.gates`, where `pull` is that of the widest space; and
the large networks learn in bfloat16 on devices that have instructions for it.
"""

from dataclasses import replace

from merge_core.presets.preset import Preset
from merge_core.recipes import Data, Gates, Recipe, Training
from merge_core.schedules import GrowthLaw

_MOMENTUM = 0.9


def _pull(learning_rate: float, steps: int, gates: int) -> float:
    """The paper's own gradient steps on one gate of a space, as `gates.pull` has it."""
    return learning_rate * steps / (1 - _MOMENTUM) / gates


def _steps(
    epochs: int,
    batch_size: int,
    learning_rate: float,
    milestones: tuple[int, ...] = (),
    weight_decay: float = 0.0,
) -> Training:
    return Training(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        rate="steps" if milestones else "constant",
        milestones=milestones,
        momentum=_MOMENTUM,
        weight_decay=weight_decay,
    )


PAPER: tuple[Preset[Recipe], ...] = (
    Preset(
        recipe=Recipe(
            name="sine",
            preset="paper",
            data=Data(name="sine", train=10_000, heldout=2_000, test=10_000, noise=0.2),
            model="sine-mlp",
            teacher=Training(
                epochs=300, batch_size=32, learning_rate=0.01, rate="steps", milestones=(250,)
            ),
            gates=Gates(start=1.0, learning_rate=0.1, pull=234.75),
            gating=Training(epochs=150, batch_size=32, learning_rate=0.01, rate="constant"),
            fine_tune=Training(
                epochs=150, batch_size=32, learning_rate=0.01, rate="steps", milestones=(100,)
            ),
        ),
        title="Sine, as in the paper",
        story="The paper's own settings: 900 epochs in all.",
    ),
    Preset(
        recipe=Recipe(
            name="imagewoof-lenet",
            preset="paper",
            data=Data(name="imagewoof", side=28, augment="flips"),
            model="lenet",
            teacher=_steps(2000, 32, 0.01, (1000, 1500)),
            gates=Gates(
                start=1.0,
                learning_rate=0.2,
                schedule=GrowthLaw(start=0.01, growth=0.05, epochs=100),
                pull=_pull(0.2, 254 * 1000, 240),
            ),
            gating=_steps(1000, 32, 0.01),
            fine_tune=_steps(1000, 32, 0.01, (500, 750)),
        ),
        title="Imagewoof, LeNet, as in the paper",
        story="The paper's own settings: 6,000 epochs in all. It does not tell those of the gates; "
        "they are those of its ResNet18.",
    ),
    Preset(
        recipe=Recipe(
            name="imagewoof-resnet18",
            preset="paper",
            data=Data(
                name="imagewoof",
                source="imagewoof2-320",
                side=224,
                augment="flips, crops and colours",
            ),
            model="resnet18",
            precision="auto",
            teacher=_steps(200, 32, 0.01, (100, 150)),
            gates=Gates(
                start=1.0,
                learning_rate=0.2,
                schedule=GrowthLaw(start=0.01, growth=0.05, epochs=100),
                pull=_pull(0.2, 254 * 100, 1024),
            ),
            gating=_steps(100, 32, 0.01),
            fine_tune=_steps(100, 32, 0.01, (50, 75)),
        ),
        title="Imagewoof, ResNet18, as in the paper",
        story="The paper's own settings: 224×224 pixels, 600 epochs in all; needs imagewoof2-320 "
        "in the data directory and a GPU.",
    ),
    Preset(
        recipe=Recipe(
            name="cifar100-resnet20",
            preset="paper",
            data=Data(name="cifar100", augment="flips and shifts"),
            model="cifar-resnet20",
            precision="auto",
            teacher=_steps(200, 128, 0.1, (100, 150), 1e-4),
            gates=Gates(
                start=1.0,
                learning_rate=0.2,
                schedule=GrowthLaw(start=0.05, growth=0.05, epochs=100),
                pull=_pull(0.2, 352 * 100, 128),
            ),
            gating=_steps(100, 128, 0.1, (50, 70), 1e-4),
            fine_tune=_steps(100, 128, 0.1, (50, 75), 1e-4),
        ),
        title="CIFAR-100, ResNet20, as in the paper",
        story="The paper's own settings: 600 epochs in all; best on a GPU.",
    ),
    Preset(
        recipe=Recipe(
            name="cifar10-vgg11",
            preset="paper",
            data=Data(name="cifar10", augment="flips and shifts"),
            model="cifar-vgg11",
            precision="auto",
            teacher=_steps(200, 128, 0.05, (100, 150), 5e-4),
            gates=Gates(
                start=1.0,
                learning_rate=0.2,
                schedule=GrowthLaw(start=0.01, growth=0.01, epochs=100),
                pull=_pull(0.2, 352 * 100, 1024),
            ),
            gating=_steps(100, 128, 0.05, (50, 70), 5e-4),
            fine_tune=_steps(100, 128, 0.05, (50, 75), 5e-4),
        ),
        title="CIFAR-10, VGG11, as in the paper's code",
        story="The settings of the paper's code, in which the teachers came from elsewhere; here "
        "they are trained like its other networks. Best on a GPU.",
    ),
    Preset(
        recipe=Recipe(
            name="imagenet-resnet18",
            preset="paper",
            data=Data(
                name="images",
                source="imagenet",
                side=224,
                classes=1000,
                augment="flips and crops",
            ),
            model="resnet18",
            precision="auto",
            teacher=_steps(20, 256, 0.1, (9, 18), 1e-4),
            gates=Gates(
                start=1.0,
                learning_rate=0.1,
                schedule=GrowthLaw(start=0.3, growth=0.2, epochs=20),
                pull=_pull(0.1, 4505 * 20, 1024),
            ),
            gating=_steps(20, 256, 0.1, (), 1e-4),
            fine_tune=replace(_steps(90, 256, 0.07, (30, 60), 1e-4), rate="warm-up and steps"),
        ),
        title="ImageNet, ResNet18, as in the paper",
        story="The paper's own settings: 150 epochs in all, from a folder "
        "imagenet with train and val in the data directory. The decoded images, about 190 GB, are "
        "kept in a file under NETWELD_HOME.",
    ),
)
