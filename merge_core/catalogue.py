"""Every way to make one network out of several, as cards (no torch).

The command line, the pages, the README's table and the conformance suite all read `METHODS`; what a
card promises is implemented in `merge_core/methods/<key>.py`.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A setting that one method has, in words; its value is checked by `recipes.MethodSettings`.

    Attributes:
        key: its name there and on the command line, `--set KEY=VALUE`.
        title: the words on a page.
        about: what it does, in a sentence or two.
    """

    key: str
    title: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One method in words.

    Attributes:
        key: the word in stores, in addresses and on the command line; its module's name.
        title: the words on a page.
        source: paper and section, or where the idea comes from.
        about: one paragraph for people who meet the method for the first time.
        gives_back: what the conformance suite holds the method to. "itself": merging a network with
            itself gives back its function; "permuted copy": merging it with a copy whose channels
            are permuted does so, too; "neither": it promises none of this.
        needs: what it looks at: the teachers' weights, their activations on training examples, or
            training of its own.
        teachers: the most teachers it takes; 0 for any number.
        size: what the result costs at test time: as much as one teacher or as all of them.
        knobs: the settings that it has.
    """

    key: str
    title: str
    source: str
    about: str
    gives_back: Literal["itself", "permuted copy", "neither"]
    needs: Literal["weights", "activations", "training"]
    teachers: int
    size: Literal["one network", "all networks"]
    knobs: tuple[Knob, ...] = ()


METHODS: tuple[Card, ...] = (
    Card(
        key="uniform",
        title="Uniform average",
        source="Utans, Weight averaging for neural networks and local resampling schemes, 1996",
        about=(
            "The plain mean of the teachers' weights, number by number. Channel 5 of one teacher "
            "has nothing to do with channel 5 of the other, so the mean of both is neither: with "
            "teachers from different seeds the result is hardly better than chance."
        ),
        gives_back="itself",
        needs="weights",
        teachers=0,
        size="one network",
    ),
    Card(
        key="fixed_weights",
        title="Fixed weights",
        source="Wortsman et al., Model soups, 2022; weights from a grid",
        about=(
            "The plain average again, but with weights from a grid, and the point with the least "
            "held-out loss wins. Single teachers are among the points: where one of them wins, "
            "there is nothing between the teachers that an average without matching could use. "
            "Weights of your own take the place of the grid."
        ),
        gives_back="itself",
        needs="training",
        teachers=0,
        size="one network",
        knobs=(
            Knob(
                key="weights",
                title="Weights of the teachers",
                about="One for each teacher, in their order, from 0 to 1 and with sum 1, such as "
                "0.7,0.3. Empty for the best of a grid.",
            ),
        ),
    ),
    Card(
        key="learned_network_weights",
        title="Learned weights, per network",
        source="a question on Stack Overflow; see Wortsman et al., Model soups, 2022, learned soup",
        about=(
            "One weight for each teacher, none negative and with sum 1, is learned by gradient "
            "descent through the averaged network, while the teachers stay frozen. Few numbers "
            "can hardly overfit, but they can only choose a point between the teachers, or one "
            "of them."
        ),
        gives_back="itself",
        needs="training",
        teachers=0,
        size="one network",
    ),
    Card(
        key="learned_layer_weights",
        title="Learned weights, per layer",
        source="Yang et al., AdaMerging, 2024, layer-wise; here learned with labels",
        about=(
            "As the learned weights per network, with weights of their own in every layer: the "
            "first layers may come from one teacher and the last from another. The teachers stay "
            "frozen, and channels stay where they are."
        ),
        gives_back="itself",
        needs="training",
        teachers=0,
        size="one network",
    ),
    Card(
        key="learned_weights_and_bias",
        title="Learned weights and a bias",
        source="a question on Stack Overflow",
        about=(
            "As the learned weights per network, with one more number that is learned and added "
            "to every averaged parameter. Parameters are not alike, so one number for all can "
            "hardly mean anything; people ask for it, and the comparison shows what it does."
        ),
        gives_back="neither",
        needs="training",
        teachers=0,
        size="one network",
    ),
    Card(
        key="weight_matching",
        title="Weight matching",
        source="Ainsworth et al., Git Re-Basin, 2023, section 3.2 and Algorithm 3 (MergeMany)",
        about=(
            "The channels of a network can be put in any order without changing what it computes. "
            "This finds the order of each teacher in which its weights are most alike those of the "
            "others, layer after layer until none can be improved, and then takes the mean. It "
            "needs no data and takes seconds."
        ),
        gives_back="permuted copy",
        needs="weights",
        teachers=0,
        size="one network",
    ),
    Card(
        key="activation_matching",
        title="Activation matching",
        source="Li et al., Convergent learning, 2016; Git Re-Basin, section 3.1",
        about=(
            "Two channels that rise and fall together on the same examples do the same work. Each "
            "channel is matched with one of every other teacher so that their correlations sum to "
            "the most, consistently among all teachers, and then the mean is taken."
        ),
        gives_back="permuted copy",
        needs="activations",
        teachers=0,
        size="one network",
    ),
    Card(
        key="soft_top_k",
        title="Soft top-k matching",
        source="an old suggestion: average each node with the k most similar ones",
        about=(
            "Each channel of the first teacher is averaged with the few most similar ones of "
            "every other teacher (three, unless told otherwise), the more similar the heavier. The "
            "more of them are blurred into one, the less is left of the other teacher: a high "
            "score may be the first teacher's."
        ),
        gives_back="permuted copy",
        needs="activations",
        teachers=0,
        size="one network",
        knobs=(
            Knob(
                key="top_k",
                title="Similar channels",
                about="How many channels of each other teacher go into one. With 1 every channel "
                "takes its most similar one alone.",
            ),
            Knob(
                key="temperature",
                title="Temperature",
                about="Of the weights of the similar channels. Low: the most similar one counts "
                "alone. High: all count alike, and blur.",
            ),
        ),
    ),
    Card(
        key="transport",
        title="Optimal-transport fusion",
        source="Singh and Jaggi, Model fusion via optimal transport, 2020, section 4",
        about=(
            "A transport plan moves every channel of the other teachers to the first one's at the "
            "least total distance between what they carry, in parts if need be, and the mean is "
            "taken. A little entropy keeps the plan soft; with much of it the other teachers fade."
        ),
        gives_back="neither",
        needs="activations",
        teachers=0,
        size="one network",
        knobs=(
            Knob(
                key="entropy",
                title="Entropy",
                about="How soft the plan is, in units of the mean distance. Near 0 every channel "
                "goes to one place.",
            ),
        ),
    ),
    Card(
        key="zip",
        title="Zip",
        source="Stoica et al., ZipIt!, 2024, section 4.1; partly zipped, section 4.3",
        about=(
            "Some channels have their like in the same network and not in the other. All channels "
            "of both teachers are paired by correlation, within and across, and each pair becomes "
            "one channel, its mean. Told to zip only the first spaces, it leaves the others of "
            "both teachers side by side and takes the mean of their outputs: better, and wider."
        ),
        gives_back="permuted copy",
        needs="activations",
        teachers=2,
        size="one network",
        knobs=(
            Knob(
                key="up_to",
                title="Zipped channel spaces",
                about="How many, counted from the input; 0 for all. In the others both teachers "
                "stay side by side, so a prediction costs more.",
            ),
        ),
    ),
    Card(
        key="output_ensemble",
        title="Output ensemble",
        source="Hansen and Salamon, Neural network ensembles, 1990",
        about=(
            "Every teacher computes its own outputs and their mean is taken. Nothing is merged, so "
            "it costs as many networks at test time as there are teachers: the line that one "
            "network of the original size is held against."
        ),
        gives_back="permuted copy",
        needs="weights",
        teachers=0,
        size="all networks",
    ),
    Card(
        key="weighted_ensemble",
        title="Weighted ensemble",
        source="Wolpert, Stacked generalization, 1992; weights on the simplex",
        about=(
            "Every teacher computes its own outputs, and their mean is taken with the weights "
            "that have the least loss on training examples. It costs all networks at test time: "
            "the upper line where one teacher is much better than another."
        ),
        gives_back="permuted copy",
        needs="training",
        teachers=0,
        size="all networks",
    ),
    Card(
        key="channel_norms",
        title="Largest channels",
        source="after Li et al., Pruning filters for efficient ConvNets, 2017, section 3.1",
        about=(
            "The teachers stand side by side, and of all channels those survive whose weights "
            "are largest, in times out. The layers that read them are refitted by least squares "
            "on a few activations, so that the kept channels make up for the others as well as "
            "they can."
        ),
        gives_back="neither",
        needs="activations",
        teachers=0,
        size="one network",
    ),
    Card(
        key="least_squares",
        title="Least-squares selection",
        source="after He et al., Channel pruning, 2017, section 3.1; greedy",
        about=(
            "The teachers stand side by side. From the last layer to the first, channels are "
            "kept one by one such that what the layers after them read is reconstructed best, up "
            "to the mean of the teachers' outputs, and the readers are refitted by least "
            "squares. Nothing is trained."
        ),
        gives_back="permuted copy",
        needs="activations",
        teachers=0,
        size="one network",
    ),
    Card(
        key="learned_gates",
        title="Learned gates",
        source="Pašen and Boža, Merging of neural networks, section 2.2",
        about=(
            "The teachers stand side by side in a big student. A gate on every channel learns, "
            "beside the weights, which channels the task needs; a growing penalty leaves half of "
            "them open, and the rest is cut away."
        ),
        gives_back="neither",
        needs="training",
        teachers=0,
        size="one network",
    ),
    Card(
        key="random_half",
        title="Random half",
        source="a control; no paper",
        about=(
            "A random choice of channels from the teachers side by side, as many as one of them "
            "has. Nothing is learned and nothing is measured: what every other choice of channels "
            "must beat."
        ),
        gives_back="neither",
        needs="weights",
        teachers=0,
        size="one network",
    ),
)
"""Every method, in the order in which it is shown."""

METHOD_BY_KEY = {card.key: card for card in METHODS}
