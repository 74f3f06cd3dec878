"""Presets of trainings that tie networks together while they learn."""

from merge_core.presets.preset import Preset
from merge_core.recipes import Averaging, Coupling, Data, Pull, Training

_DIGITS = Training(epochs=20, batch_size=64, learning_rate=0.1)
_MNIST = Data(name="mnist", train=10_000, heldout=2_000, test=10_000)
_LENET = Training(epochs=4, batch_size=64, learning_rate=0.05)

LAYERS = {
    "digits-cnn": ("features.0.0", "features.2.0", "classifier"),
    "lenet": ("features.0", "features.3", "classifier.0", "classifier.2", "classifier.4"),
}
"""The layers of these presets' models, which a pull may hold each for itself, in their order."""

TIED: tuple[Preset[Coupling | Averaging], ...] = (
    Preset(
        recipe=Coupling(
            name="digits-coupled",
            preset="quick",
            data=Data(name="digits", halves="disjoint"),
            model="digits-cnn",
            teacher=_DIGITS,
            pull=Pull(strength=(0.1,)),
        ),
        title="Digits, coupled teachers",
        story="Two teachers on disjoint halves of the digits, pulled together while they train.",
    ),
    Preset(
        recipe=Coupling(
            name="mnist-coupled",
            preset="quick",
            data=Data(
                name="mnist",
                train=_MNIST.train,
                heldout=_MNIST.heldout,
                test=_MNIST.test,
                halves="disjoint",
            ),
            model="lenet",
            teacher=_LENET,
            pull=Pull(strength=(0.1,)),
        ),
        title="MNIST, coupled teachers",
        story="Two LeNets on disjoint halves of MNIST, pulled together while they train; needs "
        "the data set on disk or a network.",
    ),
    Preset(
        recipe=Averaging(
            name="digits-averaged",
            preset="quick",
            data=Data(name="digits"),
            model="digits-cnn",
            training=_DIGITS,
        ),
        title="Digits, averaged workers",
        story="Two workers learn from parts of the digits that are dealt anew in every epoch, and "
        "are averaged after it.",
    ),
    Preset(
        recipe=Averaging(
            name="mnist-averaged",
            preset="quick",
            data=_MNIST,
            model="lenet",
            training=_LENET,
        ),
        title="MNIST, averaged workers",
        story="Two workers learn from parts of MNIST that are dealt anew in every epoch, and are "
        "averaged after it; needs the data set on disk or a network.",
    ),
)
