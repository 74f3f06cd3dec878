"""From several teachers to one student of their size, without training; and what that costs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from merge_core.channels import ChannelGraph, concatenate, trace
from merge_core.data import Split
from merge_core.methods import RANDOM_HALF
from merge_core.methods.base import Surroundings
from merge_core.methods.least_squares import reduced
from merge_core.refits.outputs import output_fitted
from merge_core.training import is_classification

RIDGE = 1e-4
"""Until fine-tuning: large weights do not survive a gradient step."""
LAST_RIDGE = 1e-8
"""After fine-tuning nothing follows that large weights could disturb."""


@dataclass(frozen=True, kw_only=True)
class Selected:
    """A student before it is fine-tuned.

    Attributes:
        student: of the teachers' class and widths, in eval mode.
        kept: the big student's channels that it has, by space; `(size,)` int64.
        flops: floating-point operations of selecting and refitting.
    """

    student: nn.Module
    kept: dict[str, Tensor]
    flops: float


class Counter:
    """Floating-point operations so far."""

    def __init__(self) -> None:
        self.flops = 0.0


@contextmanager
def counted() -> Iterator[Counter]:
    """Count the matrix products and convolutions inside; solving equations must be added."""
    counter = Counter()
    with FlopCounterMode(display=False) as mode:
        yield counter
    counter.flops += float(mode.get_total_flops())


def selected(
    teachers: Sequence[nn.Module],
    graph: ChannelGraph,
    setting: Surroundings,
    *,
    random: bool = False,
) -> Selected:
    """The channels of all teachers that explain most; readers refitted to make up for the rest.

    For classes the student shall give the mean of the teachers' outputs, see
    `merge_core.methods.least_squares`. Numbers can be fitted directly: the big student's output
    layer is first fitted to the targets, so channels are chosen, as by orthogonal matching pursuit,
    for what they tell about the targets; then the student's is.

    Args:
        teachers: of one class; they are left as they are.
        graph: the channel graph of each of them.
        setting: data and draws; `setting.examples` training examples are looked at.
        random: a control: keep random channels instead, all else alike.
    """
    train = setting.data.train
    some = train.part(slice(setting.examples))
    fits = not is_classification(train)
    with counted() as counter:
        big = concatenate(teachers, graph)
        big_graph = trace(big, setting.example)
        if fits and not random:
            big = output_fitted(big, some, RIDGE)
        if random:
            choice = RANDOM_HALF.restore(big, big_graph, setting, {})
            student, kept = choice.cut(big_graph), dict(choice.kept)
        else:
            merged = reduced(big, big_graph, teachers, graph, setting, RIDGE if fits else None)
            student, kept = merged.network, dict(merged.learned)
        if fits:
            student = output_fitted(student, some, RIDGE)
    if not random:
        counter.flops += _algebra(big_graph, len(teachers))
    return Selected(student=student.eval(), kept=kept, flops=counter.flops)


def _algebra(graph: ChannelGraph, teachers: int) -> float:
    """Operations of choosing greedily and of solving for the readers, which no matmul counts."""
    total = 0.0
    axes = [graph.axes[tensor][dim] for tensor, dim in {(r.tensor, r.dim) for r in graph.reads}]
    for space in graph.free:
        number = graph.spaces.index(space)
        channels, kept = space.size, space.size // teachers
        readers = sum(axis is not None and bool((axis.space == number).any()) for axis in axes)
        total += readers * (6 * kept * channels**2 + 2 * kept**3 / 3 + 2 * kept**2 * channels)
    return total


def refitted(student: nn.Module, train: Split) -> tuple[nn.Module, float]:
    """A fine-tuned student for numbers with its output layer fitted once more, and the FLOPs."""
    with counted() as counter:
        fitted = output_fitted(student, train, LAST_RIDGE)
    return fitted, counter.flops
