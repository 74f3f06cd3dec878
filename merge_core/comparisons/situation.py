"""What all stages of a comparison share: the teachers, the data, and how far the run is.

Headway is counted in examples that went forward through one network, so that training, judging and
measuring add up.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from merge_core.channels import flops, trace
from merge_core.data import Dataset, Split, augmentation
from merge_core.devices import generator
from merge_core.errors import DivergedError
from merge_core.events import Progress, StageStarted
from merge_core.methods import Setting
from merge_core.recipes import Comparison
from merge_core.training import evaluate

Scores = dict[str, dict[str, float]]
"""`{split: {"loss": ..., "accuracy": ...}}`, accuracy only for classification."""

_BATCH = 250


class Situation:
    """The surroundings of a comparison.

    Attributes:
        comparison: its settings.
        data: the data set.
        teachers: the networks, in eval mode.
        graph: the channel graph of each of them.
        forward: floating-point operations of one of them for one example.
        seen: the splits that networks are judged on; of the training split only the examples that
            statistics are measured on.
        setting: what methods get.
        stage: the stage at hand.
        done: examples that went forward in it.
    """

    def __init__(
        self,
        comparison: Comparison,
        data: Dataset,
        teachers: list[nn.Module],
        device: str,
        pulse: Callable[[Progress], None],
    ) -> None:
        self.comparison = comparison
        self.data = data
        self.teachers = teachers
        self._device = device
        self._report = pulse
        self.stage = ""
        self.done = 0
        few = comparison.examples
        self.seen = Dataset(data.train.part(slice(few)), data.heldout, data.test)
        self.setting = Setting(
            recipe=comparison,
            data=data,
            augment=augmentation(comparison.data.augment),
            draws=self.draws,
            teachers=len(teachers),
            examples=few,
            pulse=lambda: self.advance(0),
        )
        self.graph = trace(teachers[0], self.setting.example)
        self.forward = sum(flops(teachers[0], self.setting.example).values())

    def draws(self, purpose: str) -> torch.Generator:
        """The generator for one purpose of this comparison."""
        return generator(self.comparison.seed, purpose, self._device)

    def begin(self, stage: str) -> StageStarted:
        """A new stage, at its beginning."""
        self.stage, self.done = stage, 0
        return StageStarted(stage=stage)

    def advance(self, examples: int) -> None:
        """So many more examples went forward through a network; may raise to stop the run."""
        self.done += examples
        self._report(Progress(stage=self.stage, step=self.done))

    def batches(self, networks: int) -> Iterator[Tensor]:
        """The examples that statistics are measured on, on their way through so many networks."""
        for inputs in self.setting.batches():
            yield inputs
            self.advance(networks * len(inputs))

    @property
    def judging(self) -> int:
        """Examples that judging one network takes."""
        return sum(len(split) for split in (self.seen.train, self.seen.heldout, self.seen.test))

    def judged(self, network: nn.Module) -> Scores:
        """The scores of a network on every split.

        Raises:
            DivergedError: a loss is not finite.
        """
        return {
            "train": self._on(network, self.seen.train),
            "heldout": self._on(network, self.seen.heldout),
            "test": self._on(network, self.seen.test),
        }

    def _on(self, network: nn.Module, split: Split) -> dict[str, float]:
        sums: dict[str, float] = {}
        for batch in split.batches(_BATCH):
            for name, value in evaluate(network, batch).items():
                sums[name] = sums.get(name, 0.0) + value * len(batch)
            self.advance(len(batch))
        scores = {name: total / len(split) for name, total in sums.items()}
        if not torch.tensor(scores["loss"]).isfinite():
            raise DivergedError(
                "The network computes outputs whose loss is not finite, so it cannot be judged; "
                "give teachers whose training did not diverge, or another method."
            )
        return scores

    def best(self, after: Mapping[str, Scores]) -> str:
        """Which of some networks is best on the held-out split; the earlier one on a tie."""
        metric = self.comparison.metric
        scores = {name: each["heldout"][metric] for name, each in after.items()}
        best = next(iter(scores))
        for name in scores:
            if self.comparison.better(scores[name], scores[best]):
                best = name
        return best
