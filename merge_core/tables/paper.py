"""The strategies of the paper's Table 1, and the controls that its comparison lacks."""

import dataclasses
from collections.abc import Iterator

from merge_core.channels import concatenate
from merge_core.methods import LEARNED_GATES, RANDOM_HALF
from merge_core.methods.learned_gates import choice_of
from merge_core.published import PUBLISHED
from merge_core.repetitions import Row
from merge_core.tables.block import Block


class OneModel:
    """One network, all epochs, of ordinary or of double width."""

    def __init__(self, strategy: str, *, wide: bool) -> None:
        self.strategy, self.wide = strategy, wide

    def _epochs(self, block: Block) -> int:
        return block.epochs.long_big if self.wide else block.epochs.long

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        epochs = self._epochs(block)
        return block.flops(0, epochs) if self.wide else block.flops(epochs)

    def rows(self, block: Block) -> Iterator[Row]:
        """With the paper's milestones, where they are not in proportion to the teachers'."""
        recipe, epochs = block.recipe, self._epochs(block)
        training = recipe.teacher.over(epochs)
        published = PUBLISHED.get(recipe.name)
        if recipe.preset == "paper" and published is not None and published.milestones:
            usual = 2 * recipe.teacher.epochs + recipe.extra_epochs
            as_published = dataclasses.replace(
                training, epochs=usual, milestones=published.milestones
            )
            training = as_published.over(epochs)
        (made,) = block.networks((self.strategy,), training, wide=self.wide)
        for it, network in zip(block.all, made, strict=True):
            narrow, wide = (0, epochs) if self.wide else (epochs, 0)
            yield block.row(it, self.strategy, network, narrow, wide)


class BestOfThreeBig:
    """Three networks of double width; the best by held-out score."""

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        return block.flops(0, 3 * block.epochs.big)

    def rows(self, block: Block) -> Iterator[Row]:
        """The best of each repetition."""
        stages = ("big_a", "big_b", "big_c")
        yield from block.best_of("bo3_big", stages, block.epochs.big, wide=True)


class Merge:
    """The student with its teachers, the best of three, and the controls that start from them.

    The student of a seed is that of `netweld merge` with this seed, to rounding. Two of the three
    networks of `bo3` are its teachers, as in the paper, where they train as long. What chooses
    among the student's stages chooses between its first teacher and that teacher trained on, too.
    """

    def planned(self, block: Block) -> float:
        """FLOPs of its training in one repetition."""
        recipe, epochs = block.recipe, block.epochs
        others = 1 if block.shares_teachers else 3  # networks of `bo3` that are no teachers
        narrow = epochs.taught + others * epochs.teacher
        narrow += recipe.fine_tune.epochs + 2 * epochs.extra
        return block.flops(narrow, recipe.gating.epochs)

    def rows(self, block: Block) -> Iterator[Row]:
        """All that start from the same two teachers."""
        recipe, epochs = block.recipe, block.epochs
        extra = epochs.extra
        ones, others = block.networks(("teacher_a", "teacher_b"), recipe.teacher)
        pairs = list(zip(block.all, ones, others, strict=True))
        for it, a, _ in pairs:
            yield block.row(it, "teacher", a, 0, taught=1)
        if block.shares_teachers:
            (thirds,) = block.networks(("teacher_c",), recipe.teacher)
            for (it, a, b), c in zip(pairs, thirds, strict=True):
                yield block.row(it, "bo3", it.best_of([a, b, c]), epochs.teacher, taught=2)
        else:
            stages = ("teacher_c", "teacher_d", "teacher_e")
            yield from block.best_of("bo3", stages, epochs.teacher, wide=False)

        bigs = [concatenate([a, b], block.graph) for _, a, b in pairs]
        jobs = [
            LEARNED_GATES.job(big, block.big_graph, it.setting)
            for it, big in zip(block.all, bigs, strict=True)
        ]
        students = []
        ways = [[it.seen("teacher_a", a), it.seen("teacher_b", b)] for it, a, b in pairs]
        for it, big, way in zip(block.all, bigs, ways, strict=True):
            way.append(it.seen("big", big))
        gates = block.train(jobs, block.cost_big)
        for it, gated, way in zip(block.all, gates, ways, strict=True):
            choice = choice_of(gated, block.big_graph, it.setting)
            cut = choice.cut(block.big_graph).eval()
            way += [it.seen("gates", choice.network), it.seen("cut", cut)]
            yield block.row(it, "cut", cut, 0, recipe.gating.epochs, taught=2)
            students.append(block.with_norms(it, cut, recipe.gating.batch_size, way))
        tuned = block.tuned(students, "fine_tune", recipe.fine_tune)
        for it, student, fine, way in zip(block.all, students, tuned, ways, strict=True):
            returned = it.best_of([student, fine])
            if recipe.fine_tune.epochs:
                way.append(it.seen("fine_tune", fine))
            yield block.row(
                it,
                "student",
                returned,
                recipe.fine_tune.epochs,
                recipe.gating.epochs,
                stages=way,
                taught=2,
            )

        halves = []
        for it, big in zip(block.all, bigs, strict=True):
            choice = RANDOM_HALF.restore(big, block.big_graph, it.setting, {})
            halves.append(choice.cut(block.big_graph))
        made = block.tuned(halves, "random_half", recipe.fine_tune.over(extra))
        for it, network in zip(block.all, made, strict=True):
            yield block.row(it, "random_half", network, extra, taught=2)
        made = block.tuned(ones, "trained_on", recipe.teacher.over(extra))
        for it, a, network in zip(block.all, ones, made, strict=True):
            way = [it.seen("teacher_a", a), it.seen("trained_on", network)]
            better = it.best_of([a, network])
            yield block.row(it, "trained_on", better, extra, stages=way, taught=1)
