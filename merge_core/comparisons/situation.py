"""What all stages of a comparison share: the teachers, the data, and how far the run is.

Headway is counted in examples that went forward through one network, so that training, judging and
measuring add up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from merge_core.channels import flops
from merge_core.data import Dataset, Split, augmentation
from merge_core.devices import generator
from merge_core.errors import DivergedError
from merge_core.events import Progress, StageStarted
from merge_core.methods import Setting
from merge_core.proof import proved
from merge_core.recipes import Comparison
from merge_core.training import is_classification

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
        own: the metric of every teacher on every test example, `(teachers, examples)` float32 on
            the CPU; None before they are judged.
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
        self.own: Tensor | None = None
        self.stage = ""
        self.done = 0
        few = comparison.examples
        self.seen = Dataset(data.train.part(slice(few)), data.heldout, data.test)
        self.setting = Setting(
            recipe=comparison,
            data=data,
            augment=augmentation(comparison.data.augment, data.train.normalisation),
            draws=self.draws,
            teachers=len(teachers),
            examples=few,
            pulse=lambda: self.advance(0),
        )
        self.graph = proved(teachers[0], self.setting.example, comparison.model)
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

    def judged(self, network: nn.Module) -> tuple[Scores, Tensor]:
        """The scores of a network in eval mode on every split, and its metric on test, one by one.

        The latter is `(test examples,)` float32 on the CPU: 1 where the network is right and 0
        where it is wrong, or squared errors.

        Raises:
            DivergedError: a loss is not finite.
        """
        splits = {"train": self.seen.train, "heldout": self.seen.heldout, "test": self.seen.test}
        values = {name: self._on(network, split) for name, split in splits.items()}
        scores = {
            split: {name: float(each.double().mean()) for name, each in found.items()}
            for split, found in values.items()
        }
        return scores, values["test"][self.comparison.metric]

    @torch.no_grad()
    def _on(self, network: nn.Module, split: Split) -> dict[str, Tensor]:
        """Loss, and for classes accuracy, of every example; `{name: (examples,)}` on the CPU."""
        network.eval()
        values: dict[str, list[Tensor]] = {}
        for batch in split.batches(_BATCH):
            outputs, targets = network(batch.inputs), batch.targets
            if is_classification(split):
                found = {
                    "loss": functional.cross_entropy(outputs, targets, reduction="none"),
                    "accuracy": outputs.argmax(1) == targets,
                }
            else:
                found = {"loss": (outputs - targets).square().mean(1)}
            for name, each in found.items():
                values.setdefault(name, []).append(each.cpu().float())
            self.advance(len(targets))
        joined = {name: torch.cat(each) for name, each in values.items()}
        if not joined["loss"].isfinite().all():
            raise DivergedError(
                "The network computes outputs whose loss is not finite, so it cannot be judged; "
                "give teachers whose training did not diverge, or another method."
            )
        return joined

    def chance(self, each: Tensor) -> dict[str, Any]:
        """How far a test score may be off because the test examples are a sample.

        Args:
            each: the metric of every test example, from `judged`.

        Returns:
            "error", the standard error of the score, and "minus", for every teacher the difference
            from its score and the standard error of that: as both saw the same examples, their luck
            with them cancels. "minus" is empty before the teachers are judged.
        """
        apart: Sequence[Tensor] = () if self.own is None else list(each - self.own)
        return {
            "error": _standard_error(each),
            "minus": [[float(d.double().mean()), _standard_error(d)] for d in apart],
        }

    def best(self, after: Mapping[str, Scores]) -> str:
        """Which of some networks is best on the held-out split; the earlier one on a tie."""
        metric = self.comparison.metric
        scores = {name: each["heldout"][metric] for name, each in after.items()}
        best = next(iter(scores))
        for name in scores:
            if self.comparison.better(scores[name], scores[best]):
                best = name
        return best


def _standard_error(values: Tensor) -> float:
    """Of the mean of independent values; 0 where all are the same."""
    return float(values.double().std(correction=0)) / len(values) ** 0.5
