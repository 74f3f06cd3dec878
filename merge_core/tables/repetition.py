"""One seed of a table: its data, its draws, its untrained networks."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from merge_core.channels import ChannelGraph, concatenate
from merge_core.data import Split, load
from merge_core.devices import derived_seed
from merge_core.methods import Setting
from merge_core.recipes import Recipe
from merge_core.staging import Stages
from merge_core.training import evaluate

Seen = tuple[str, float, float]
"""A stage's key, the held-out and the test score of its network."""


class Repetition(Stages[Recipe]):
    """One seed: its data, its draws, its networks, the same as those of `netweld merge`."""

    def __init__(self, recipe: Recipe, device: str, data_dir: Path) -> None:
        super().__init__(recipe, device, load(recipe.data, recipe.seed, data_dir), None)
        self.setting = Setting(
            recipe=recipe, data=self.data, augment=self.augment, draws=self.draws, teachers=2
        )

    def wide(self, stage: str, graph: ChannelGraph) -> nn.Module:
        """An untrained network of double width."""
        network = self.fresh(stage)
        big = concatenate([network, network], graph)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.recipe.seed, f"init/{stage}"))
            for module in big.modules():
                reset = getattr(module, "reset_parameters", None)
                if reset is not None:
                    reset()
        return big

    def examples(self, stage: str) -> Split:
        """What a stage trains on; the student's teachers may have one half each."""
        if self.recipe.data.halves == "disjoint" and stage in ("teacher_a", "teacher_b"):
            return self.data.halves[stage == "teacher_b"]
        return self.data.train

    def heldout(self, network: nn.Module) -> float:
        """The score that chooses."""
        return evaluate(network, self.data.heldout)[self.recipe.metric]

    def reported(self, network: nn.Module) -> float:
        """The score that only reports."""
        return evaluate(network, self.data.test)[self.recipe.metric]

    def seen(self, stage: str, network: nn.Module) -> Seen:
        """What a network on the way scores."""
        return stage, self.heldout(network), self.reported(network)

    def best_of(self, networks: Sequence[nn.Module]) -> nn.Module:
        """The network with the best held-out score; the first on a tie."""
        best = networks[0]
        for network in networks[1:]:
            if self.recipe.better(self.heldout(network), self.heldout(best)):
                best = network
        return best
