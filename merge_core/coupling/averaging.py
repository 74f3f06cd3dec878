"""Workers that learn from parts of the data and meet at their average."""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from merge_core.channels import ChannelGraph, permute
from merge_core.data import Split
from merge_core.matching import match_weights
from merge_core.methods.base import weighted_mean
from merge_core.recipes import Averaging
from merge_core.training import Course, evaluate


def dealt(examples: int, workers: int, draws: torch.Generator) -> list[Tensor]:
    """So many examples dealt to so many workers in a new random order.

    The workers' batches of one step are together what one batch of all would be in that order.
    Examples that are left over, fewer than there are workers, wait for another epoch.
    """
    order = torch.randperm(examples, generator=draws, device=draws.device)
    each = examples // workers
    return [order[worker : each * workers : workers] for worker in range(workers)]


class Dealing:
    """The tie between workers that never meet: each sees its part of every epoch's new split.

    Args:
        courses: of the workers.
        workers: how many parts are dealt; the courses take the first ones.
        heldout: the split that is watched.
        dealing: deals the examples.
    """

    def __init__(
        self, courses: Sequence[Course], workers: int, heldout: Split, dealing: torch.Generator
    ) -> None:
        self.generators: tuple[torch.Generator, ...] = (dealing,)
        self._courses = courses
        self._workers = workers
        self._heldout = heldout

    @property
    def _networks(self) -> list[nn.Module]:
        return [course.job.network for course in self._courses]

    def orders(self) -> Sequence[Tensor]:
        """The parts of a new random split."""
        examples = len(self._courses[0].job.train)
        return dealt(examples, self._workers, self.generators[0])[: len(self._courses)]

    def before_move(self, step: int, steps: int) -> None:
        """Nothing to do."""

    def after_move(self, step: int, steps: int) -> None:
        """Nothing to do."""

    def observe(self) -> dict[str, float]:
        """Held-out scores of the average."""
        scores = evaluate(mean_of(self._networks), self._heldout)
        return {f"heldout_{metric}": value for metric, value in scores.items()}


class Meetings(Dealing):
    """The tie between workers: every so often they are averaged and go on from there.

    Args:
        courses: of the workers.
        graph: the channel graph of each of them.
        recipe: how often they are averaged, and how.
        heldout: the split that is watched.
        dealing: deals the examples.
        matching: draws the order in which spaces are matched.
    """

    def __init__(
        self,
        courses: Sequence[Course],
        graph: ChannelGraph,
        recipe: Averaging,
        heldout: Split,
        dealing: torch.Generator,
        matching: torch.Generator,
    ) -> None:
        super().__init__(courses, recipe.workers, heldout, dealing)
        self.generators = (dealing, matching)
        self._graph = graph
        self._recipe = recipe
        self._every = recipe.every or courses[0].per_epoch
        self._apart = torch.zeros(())
        self._moved = 0

    @torch.no_grad()
    def after_move(self, step: int, steps: int) -> None:
        """The workers meet, if it is time."""
        if (step + 1) % self._every:
            return
        if self._recipe.average == "matched":
            self._align()
        networks = self._networks
        mean = mean_of(networks)
        self._apart = spread(networks, mean)
        for network in networks:
            for own, common in zip(
                network.state_dict().values(), mean.state_dict().values(), strict=True
            ):
                if own.is_floating_point():
                    own.lerp_(common, self._recipe.share)
                else:
                    own.copy_(common)

    def _align(self) -> None:
        """Bring the channels of all workers to the order of the first worker's."""
        first = self._courses[0].job.network
        for course in self._courses[1:]:
            orders = match_weights(
                first, course.job.network, self._graph, self.generators[1]
            ).orders
            moved = sum(int((order != torch.arange(len(order))).sum()) for order in orders.values())
            if moved:
                reorder(course, self._graph, orders)
            self._moved += moved

    def observe(self) -> dict[str, float]:
        """Held-out scores of the average, and how far the workers were apart when they last met.

        "distance" is the workers' root mean square distance from their average over its length;
        "moved" counts the channels that matching has moved in this epoch.
        """
        metrics = super().observe() | {"distance": float(self._apart)}
        if self._recipe.average == "matched":
            metrics["moved"] = float(self._moved)
            self._moved = 0
        return metrics


def mean_of(networks: Sequence[nn.Module]) -> nn.Module:
    """The plain mean of networks as they are: a new one, in eval mode."""
    return weighted_mean(networks, [1 / len(networks)] * len(networks))


def spread(networks: Sequence[nn.Module], mean: nn.Module) -> Tensor:
    """Root mean square distance of the networks' parameters from their mean, over its length."""
    centre = nn.utils.parameters_to_vector(mean.parameters())
    squares = torch.stack(
        [
            (nn.utils.parameters_to_vector(network.parameters()) - centre).square().sum()
            for network in networks
        ]
    )
    return squares.mean().sqrt() / torch.linalg.vector_norm(centre)


@torch.no_grad()
def reorder(course: Course, graph: ChannelGraph, orders: Mapping[str, Tensor]) -> None:
    """Put a worker's channels, and its momentum with them, in another order, in place.

    Args:
        course: of the worker.
        graph: its channel graph.
        orders: as `channels.permute` takes them.
    """
    network = course.job.network
    momenta = [course.optimizer.state[p].get("momentum_buffer") for p in network.parameters()]
    velocity = copy.deepcopy(network)
    for into, momentum in zip(velocity.parameters(), momenta, strict=True):
        if momentum is not None:
            into.copy_(momentum)
    velocity = permute(velocity, graph, orders)
    network.load_state_dict(permute(network, graph, orders).state_dict())
    for momentum, moved in zip(momenta, velocity.parameters(), strict=True):
        if momentum is not None:
            momentum.copy_(moved)
