"""Two teachers that are pulled together while they train, or share their lower layers."""

import difflib
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from merge_core.data import Split
from merge_core.errors import RecipeError
from merge_core.recipes import Pull
from merge_core.training import evaluate


def layers_of(network: nn.Module) -> dict[str, list[str]]:
    """Layer → the modules that belong to it, in the order in which the network holds them.

    A layer is a module with a weight of two dimensions or more, under its own name; modules with
    smaller parameters only, such as norms, belong to the layer before them.
    """
    layers: dict[str, list[str]] = {}
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        if not layers or any(parameter.dim() > 1 for parameter in own):
            layers[name] = []
        layers[list(layers)[-1]].append(name)
    return layers


def share_layers(a: nn.Module, b: nn.Module, heads_from: str) -> None:
    """Put A's layers before `heads_from` into B as they are: the same modules, not copies.

    Args:
        a, b: two networks of one architecture; B changes.
        heads_from: the first layer that each has for itself.

    Raises:
        RecipeError: there is no such layer, or none lies before it.
    """
    layers = layers_of(a)
    if heads_from not in layers or heads_from == next(iter(layers)):
        names = list(layers)[1:]
        near = difflib.get_close_matches(heads_from, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(names)}."
        raise RecipeError(
            f"The recipe got pull.heads_from={heads_from!r}, but a layer after the network's "
            f"first one was expected; {hint}"
        )
    for layer, modules in layers.items():
        if layer == heads_from:
            return
        for name in modules:
            parent, _, attribute = name.rpartition(".")
            setattr(b.get_submodule(parent), attribute, a.get_submodule(name))


def shared_parameters(a: nn.Module, b: nn.Module) -> list[nn.Parameter]:
    """The parameters that two networks have in common, as A holds them."""
    theirs = {id(parameter) for parameter in b.parameters()}
    return [parameter for parameter in a.parameters() if id(parameter) in theirs]


class PulledTogether:
    """The tie between two teachers.

    The pull is added to the gradients: that of w ‖θ_A − θ_B‖² is 2w (θ_A − θ_B) for A, while B is
    taken as fixed, and the reverse for B. Parameters that both hold take the mean of both
    gradients, which is what an infinite w leads to.

    Args:
        a, b: the teachers.
        pull: how they are held together.
        heldout: the split that is watched.

    Raises:
        RecipeError: the strengths do not fit the layers.
    """

    generators: tuple[torch.Generator, ...] = ()

    def __init__(self, a: nn.Module, b: nn.Module, pull: Pull, heldout: Split) -> None:
        self._teachers = {"a": a, "b": b}
        self._pull = pull
        self._heldout = heldout
        self._shared = shared_parameters(a, b)
        self._pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._weights: list[float] = []
        layers = layers_of(a)
        strength = pull.by_layer(list(layers))
        for layer, modules in layers.items():
            for name in modules:
                ours = a.get_submodule(name).parameters(recurse=False)
                theirs = b.get_submodule(name).parameters(recurse=False)
                for pair in zip(ours, theirs, strict=True):
                    self._pairs.append(pair)
                    self._weights.append(strength[layer])
        self._share = 0.0

    def orders(self) -> Sequence[Tensor | None]:
        """Each teacher sees all of its examples."""
        return (None, None)

    def before_move(self, step: int, steps: int) -> None:
        """Add the pull to the gradients."""
        for parameter in self._shared:
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)
        self._share = (step + 1) / steps if self._pull.law == "growing" else 1.0
        with torch.no_grad():
            for (ours, theirs), weight in zip(self._pairs, self._weights, strict=True):
                if ours is theirs or not weight or ours.grad is None or theirs.grad is None:
                    continue
                apart = ours - theirs
                ours.grad.add_(apart, alpha=2 * weight * self._share)
                theirs.grad.sub_(apart, alpha=2 * weight * self._share)

    def after_move(self, step: int, steps: int) -> None:
        """Nothing to do."""

    @torch.no_grad()
    def observe(self) -> dict[str, float]:
        """Held-out scores of both and their mean, the pull, and how far the teachers are apart.

        "distance" is ‖θ_A − θ_B‖ over the root of ‖θ_A‖ ‖θ_B‖; √2 for independent weights.
        """
        scores = {name: evaluate(each, self._heldout) for name, each in self._teachers.items()}
        metrics = {
            f"heldout_{metric}": (scores["a"][metric] + scores["b"][metric]) / 2
            for metric in scores["a"]
        }
        for name, each in scores.items():
            metrics |= {f"heldout_{metric}_{name}": value for metric, value in each.items()}
        squares = [_square(ours - theirs) for ours, theirs in self._pairs]
        sizes = [math.sqrt(sum(_square(pair[side]) for pair in self._pairs)) for side in (0, 1)]
        metrics["distance"] = math.sqrt(sum(squares) / (sizes[0] * sizes[1]))
        metrics["pull"] = self._share * sum(
            weight * square for weight, square in zip(self._weights, squares, strict=True)
        )
        return metrics


def _square(tensor: Tensor) -> float:
    """The sum of the squares of all numbers."""
    return float(tensor.cpu().double().square().sum())
