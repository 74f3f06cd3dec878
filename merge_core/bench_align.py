"""How fast networks are compared and aligned: as a program, because it needs torch.

    python -P -m merge_core.bench_align REPEATS

prints each measurement as it is made. What is compared is measured in turns in one process, and
medians are compared. Goal: observing what the channels of two ResNet20 carry on 10,000 images
takes at most 1.25 times as long as letting both networks compute; matching the weights of two
ResNet20 takes less than 2 s, of two ResNet50 less than 60 s. Where `rebasin` is installed, a public
implementation of the same algorithm, it matches the small networks, too.
"""

import copy
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torchvision.models import get_model

from merge_core.activations import observe
from merge_core.bench_graph import medians, verdict
from merge_core.channels import ChannelGraph, trace
from merge_core.matching import WeightMatching, match_weights
from merge_core.models import build

ACTIVATIONS_GOAL = 1.25
IMAGES, TURN, BATCH = 10_000, 1_000, 250
MATCHED: dict[str, tuple[float | None, bool]] = {
    "cifar-resnet20": (2.0, True),
    "resnet18": (None, True),
    "resnet50": (60.0, False),
}
"""Networks whose weights are matched: the most seconds, and whether `rebasin` does it, too."""


def activations(networks: Sequence[nn.Module], inputs: Tensor, batch: int, repeats: int) -> str:
    """One line: `observe` on the inputs against forward passes of all networks on them."""
    graph = trace(networks[0], inputs[:2])
    batches = inputs.split(batch)

    @torch.no_grad()
    def computed() -> None:
        for part in batches:
            for network in networks:
                network(part)

    observed, forward = medians(repeats, lambda: observe(networks, graph, batches), computed)
    ratio = observed / forward
    return (
        f"observe {observed / len(inputs) * 1e6:7.1f} µs an image = {ratio:.2f} × the forward "
        f"passes of {forward / len(inputs) * 1e6:7.1f} µs{verdict(ratio <= ACTIVATIONS_GOAL)}"
    )


def _pair(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    """Two fresh networks and an example; matching takes as long as for trained ones, or longer."""
    if name.startswith("cifar"):
        first, second = (build(name, seed).eval() for seed in (0, 1))
        return first, second, torch.zeros(2, 3, 32, 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = (get_model(name, weights=None).eval() for _ in range(2))
    return first, second, torch.zeros(2, 3, 64, 64)


def weights(
    a: nn.Module, b: nn.Module, graph: ChannelGraph, repeats: int, goal: float | None
) -> tuple[str, float]:
    """One line, and the seconds: both networks matched by their weights."""

    def matched() -> WeightMatching:
        return match_weights(a, b, graph, torch.Generator().manual_seed(0))

    (seconds,) = medians(repeats, matched)
    found = matched()
    line = (
        f"match weights {seconds:6.2f} s, {len(found.orders)} spaces, objective "
        f"{found.objective[0]:.1f} to {found.objective[-1]:.1f} in {len(found.objective) - 1} "
        f"passes{verdict(goal is None or seconds < goal)}"
    )
    return line, seconds


def public(a: nn.Module, b: nn.Module, example: Tensor, ours: float) -> str:
    """One line: the same by the package `rebasin`, once; its constructor traces the networks."""
    rebasin = import_module("rebasin")
    moved = copy.deepcopy(b)
    ascent = rebasin.PermutationCoordinateDescent(a, moved, example)
    start = time.perf_counter()
    ascent.rebasin()
    seconds = time.perf_counter() - start
    reached = sum(
        float((one.detach().double() * other.detach().double()).sum())
        for one, other in zip(a.parameters(), moved.parameters(), strict=True)
    )
    return f"rebasin       {seconds:6.2f} s = {seconds / ours:.1f} × as long, to {reached:.1f}"


def measure(repeats: int) -> None:
    """Measure and print everything."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians")
    turns = repeats * IMAGES // TURN
    print(f"\nTwo cifar-resnet20, {turns} turns of {TURN} images in batches of {BATCH}", flush=True)
    networks = [build("cifar-resnet20", seed).eval() for seed in (0, 1)]
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(TURN, 3, 32, 32, generator=draws)
    print(activations(networks, inputs, BATCH, turns), flush=True)
    print("\nTwo networks matched by weights", flush=True)
    compared = find_spec("rebasin") is not None
    for name, (goal, small) in MATCHED.items():
        a, b, example = _pair(name)
        line, seconds = weights(a, b, trace(a, example), repeats, goal)
        print(f"{name:18} {line}", flush=True)
        if compared and small:
            print(f"{'':18} {public(a, b, example, seconds)}", flush=True)
    if not compared:
        print("rebasin is not installed, so nothing is compared with it; pip install rebasin")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
