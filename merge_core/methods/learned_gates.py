"""The paper's method: gates learn, beside the weights, which half of the channels to keep."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from merge_core import recipes
from merge_core.channels import ChannelGraph, concatenate, flops, trace
from merge_core.devices import derived_seed
from merge_core.events import Arrays, Event
from merge_core.gates import Gates, Pull, gate, gates_of, most_open_half
from merge_core.methods.base import STEP_COST, Choice, Merged, Setting, as_progress
from merge_core.training import Job, fit, load_arrays, to_array


@dataclass(frozen=True, kw_only=True)
class GateLearning:
    """The gates as the training loop sees them: parameters of their own, pulled to half."""

    gates: Gates
    settings: recipes.Gates
    training: recipes.Training

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [
            {
                "params": list(self.gates.parameters()),
                "lr": self.settings.learning_rate,
                "momentum": self.training.momentum,
                "weight_decay": 0.0,
                "fixed": True,
            }
        ]

    def _weight(self, step: int, steps: int) -> float:
        return self.settings.schedule.at(step / steps)

    def after_step(self, step: int, steps: int) -> None:
        self.gates.pull(Pull.at(self._weight(step, steps), self.settings.pull, step, steps))

    def observe(self, step: int, steps: int) -> tuple[dict[str, float], Arrays]:
        open_now = {name: to_array(p) for name, p in self.gates.open_probabilities().items()}
        metrics = {
            "lambda": self._weight(step - 1, steps),
            "penalty": self.gates.penalty().item(),
        }
        return metrics, open_now


class LearnedGates:
    """Hard-concrete gates under the half-open penalty with a growing λ."""

    key = "learned_gates"
    title = "Learned gates"
    source = "Pašen and Boža, Merging of neural networks, section 2.2"

    def choose(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, checkpoint: Arrays | None
    ) -> Generator[Event, None, Choice]:
        """Train weights and gates together, then keep the most open half of every space."""
        job = self.job(big, graph, setting)
        yield from fit(job, checkpoint)
        return choice_of(job.network, setting.teachers)

    def job(self, big: nn.Module, graph: ChannelGraph, setting: Setting) -> Job:
        """The gate stage as a job of training; `choice_of` its network is what was learned."""
        gated = _gated(big, graph, setting)
        return Job(
            stage="gates",
            network=gated,
            training=setting.recipe.gating,
            train=setting.data.train,
            heldout=setting.data.heldout,
            augment=setting.augment,
            draws=setting.draws("train/gates"),
            dropout_seed=derived_seed(setting.recipe.seed, "dropout/gates"),
            companion=GateLearning(
                gates=gates_of(gated),
                settings=setting.recipe.gates,
                training=setting.recipe.gating,
            ),
            generators=(gates_of(gated).draws,),
        )

    def restore(
        self, big: nn.Module, graph: ChannelGraph, setting: Setting, arrays: Arrays
    ) -> Choice:
        """The choice of gates that have learned in an earlier process."""
        return choice_of(load_arrays(_gated(big, graph, setting), arrays), setting.teachers)


def _gated(big: nn.Module, graph: ChannelGraph, setting: Setting) -> nn.Module:
    """The big student with its gates as they start."""
    gates = setting.recipe.gates
    return gate(big, graph, start=gates.start, spread=gates.spread, draws=setting.draws("gates"))


def choice_of(gated: nn.Module, teachers: int) -> Choice:
    """The choice that gates which have learned stand for."""
    gates = gates_of(gated)
    return Choice(
        network=gated,
        gates=gates.deterministic(),
        open_probability=gates.open_probabilities(),
        kept={
            name: most_open_half(logits.detach(), teachers)
            for name, logits in gates.spaces().items()
        },
    )


LEARNED_GATES = LearnedGates()


def merge(
    teachers: Sequence[nn.Module], graph: ChannelGraph, setting: Setting
) -> Generator[Event, None, Merged]:
    """Gates and weights of the big student learn together; then the closed half is cut away.

    `learned` holds P[gate > 0] of every channel of the big student, by space.
    """
    big = concatenate(teachers, graph)
    big_graph = trace(big, setting.example)
    choosing = LEARNED_GATES.choose(big, big_graph, setting, None)
    choice = yield from as_progress(choosing, LEARNED_GATES.key)
    examples = setting.recipe.gating.epochs * len(setting.data.train)
    return Merged(
        network=choice.cut(big_graph).eval(),
        learned=choice.open_probability,
        sources=None,
        training_flops=STEP_COST * examples * sum(flops(big, setting.example).values()),
    )
