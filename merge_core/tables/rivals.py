"""Averages of weights, the rivals of a merge: they cost no more than training one network."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

from torch import Tensor

from merge_core.methods.base import weighted_mean
from merge_core.repetitions import Row
from merge_core.tables.block import Block


class SharedStart:
    """One network for half of the budget, then two branches for a quarter each, averaged.

    Networks that share the beginning of their training stay in one valley, so that their weights
    can be averaged (Frankle et al. 2020, "Linear mode connectivity and the lottery ticket
    hypothesis"). As in a greedy soup (Wortsman et al. 2022, "Model soups"), the held-out score
    chooses between the average, its ingredients and what they grew from, as it does among a
    student's stages; norm statistics of the average are re-estimated where that helps.
    """

    def _epochs(self, block: Block) -> tuple[int, int]:
        """Of the start and of each branch."""
        branch = block.epochs.long // 4
        return block.epochs.long - 2 * branch, branch

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        return block.flops(block.epochs.long)

    def rows(self, block: Block) -> Iterator[Row]:
        """The branches go on with the settings of fine-tuning."""
        before, branch = self._epochs(block)
        (starts,) = block.networks(("shared_start",), block.recipe.teacher.over(before))
        training = block.recipe.fine_tune.over(branch)
        ones, others = (block.tuned(starts, stage, training) for stage in ("branch_a", "branch_b"))
        for it, start, a, b in zip(block.all, starts, ones, others, strict=True):
            average = block.with_norms(it, weighted_mean([a, b], [0.5, 0.5]), training.batch_size)
            soup = it.best_of([average, a, b, start])
            yield block.row(it, "shared_start", soup, before + 2 * branch)


class WeightAverage:
    """One network whose weights are averaged over the last quarter of its training.

    Stochastic weight averaging (Izmailov et al. 2018, "Averaging weights leads to wider optima and
    better generalization", section 3) with its settings for a budget of one training: the usual
    schedule for three quarters, then a constant rate, here half of the highest one, and the plain
    mean of the weights after every epoch; norm statistics are re-estimated. It is taken rather than
    an exponential average because that is made for a rate that stays high: where a rate falls to
    nothing, as here, it ends at the last weights (Morales-Brotons et al. 2024, "Exponential moving
    average of weights in deep learning"). The held-out score chooses between the mean and the
    network before and after that quarter, as it does among a student's stages.
    """

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        return block.flops(block.epochs.long)

    def rows(self, block: Block) -> Iterator[Row]:
        """The mean of every repetition's network over its last quarter."""
        total = block.epochs.long
        last = max(1, total // 4)
        usual = block.recipe.teacher
        (made,) = block.networks(("before_average",), usual.over(total - last))
        training = dataclasses.replace(
            usual,
            epochs=last,
            rate="constant",
            milestones=(),
            learning_rate=usual.learning_rate / 2,
        )
        before = [copy.deepcopy(network) for network in made]
        jobs = [
            it.job("weight_average", network, training)
            for it, network in zip(block.all, made, strict=True)
        ]
        sums: dict[int, dict[str, Tensor]] = {}

        def add(numbers: Sequence[int]) -> None:
            for number in numbers:
                mine = sums.setdefault(number, {})
                for name, value in jobs[number].network.state_dict().items():
                    if value.is_floating_point():
                        mine[name] = mine[name] + value.double() if name in mine else value.double()

        made = block.train(jobs, block.cost, add)
        for number, (it, start, end) in enumerate(zip(block.all, before, made, strict=True)):
            average = copy.deepcopy(end)
            state = average.state_dict()
            for name, total_of in sums[number].items():
                state[name].copy_(total_of / last)
            average = block.with_norms(it, average, usual.batch_size)
            yield block.row(it, "weight_average", it.best_of([average, start, end]), total)
