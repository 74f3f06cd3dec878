"""How fast a table is: many networks at once against one after the other; needs torch.

    python -P -m merge_core.bench_table NETWORKS REPEATS

Times samples of the sine row of Table 1 (preset `paper`): an epoch of each kind of network by a
plain PyTorch loop, one network at a time, and by `ensembles.fit_together` in one process for each
core, in turns; medians are compared. From them follows the time of the whole row for one
repetition. The plain loop has one thread, because its tensors are too small for more. Where other
programs keep the cores busy, wall time says little, so processor time is shown, too: ours is that
of all processes over their number. Goal: at least 40 times as fast as the plain loop.
"""

import dataclasses
import multiprocessing
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

import torch
from torch import nn
from torch.nn import functional

from merge_core import processes
from merge_core.bench_graph import verdict
from merge_core.channels import trace
from merge_core.data import Dataset, Split
from merge_core.data.generated import sine
from merge_core.devices import generator
from merge_core.ensembles import fit_together
from merge_core.methods import LEARNED_GATES, Setting
from merge_core.models.small import SineMLP
from merge_core.presets import find_preset
from merge_core.recipes import Recipe
from merge_core.training import Job

GOAL = 40.0
EPOCHS = 2
_CLOCKS = ("wall", "processor")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of network of the row.

    Attributes:
        title: the words in the output.
        hidden: its width.
        gated: whether its gates learn.
        epochs: how many epochs of such networks a repetition of the row has.
    """

    title: str
    hidden: int
    gated: bool
    epochs: int


def kinds(recipe: Recipe) -> tuple[Kind, ...]:
    """What a repetition of every strategy trains, with the teachers shared."""
    teacher, extra = recipe.teacher.epochs, recipe.extra_epochs
    long = 2 * teacher + extra
    narrow = 3 * teacher + recipe.fine_tune.epochs + 2 * extra + long
    return (
        Kind(title="one teacher's width", hidden=100, gated=False, epochs=narrow),
        Kind(title="double width", hidden=200, gated=False, epochs=3 * teacher + long),
        Kind(title="double width, gates", hidden=200, gated=True, epochs=recipe.gating.epochs),
    )


class PlainGates(nn.Module):
    """A hidden layer, hard-concrete gates with fresh noise for every example, an output layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, hidden)
        self.output = nn.Linear(hidden, 1)
        self.logits = nn.Parameter(1 + 0.01 * torch.randn(hidden))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(x))
        uniform = torch.rand_like(hidden).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((uniform.log() - (1 - uniform).log() + self.logits) / (2 / 3))
        return self.output(hidden * (s * 1.2 - 0.1).clamp(0, 1))

    def penalty(self) -> torch.Tensor:
        """(½ − mean P[g > 0])²."""
        shift = 2 / 3 * torch.log(torch.tensor(0.1 / 1.1))
        return (0.5 - torch.sigmoid(self.logits - shift).mean()).square()


@dataclass(frozen=True)
class Seconds:
    """How long something took: by the clock, and on the processor."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Seconds":
        """Both clocks."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: "Seconds") -> "Seconds":
        """What has passed."""
        return Seconds(self.wall - start.wall, self.processor - start.processor)


def plain(kind: Kind, data: Split, batch_size: int) -> Seconds:
    """One epoch of one network by the loop that anybody would write."""
    network = PlainGates(kind.hidden) if kind.gated else SineMLP(kind.hidden)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    start = Seconds.now()
    for batch in torch.randperm(len(data)).split(batch_size):
        loss = functional.mse_loss(network(data.inputs[batch]), data.targets[batch])
        if isinstance(network, PlainGates):
            loss = loss + 0.1 * network.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Seconds.now().since(start)


def jobs(kind: Kind, recipe: Recipe, data: Split, seeds: range) -> list[Job]:
    """One job for each seed, of a few epochs."""
    splits = Dataset(data, data, data)
    made = []
    for seed in seeds:
        mine = dataclasses.replace(
            recipe,
            seed=seed,
            teacher=recipe.teacher.over(EPOCHS),
            gating=recipe.gating.over(EPOCHS),
        )
        setting = Setting(
            recipe=mine,
            data=splits,
            augment=lambda inputs, draws: inputs,
            draws=lambda purpose, seed=seed: generator(seed, purpose),
            teachers=2,
        )
        network = SineMLP(kind.hidden)
        if kind.gated:
            made.append(LEARNED_GATES.job(network, trace(network, setting.example), setting))
        else:
            made.append(
                Job(
                    stage="teacher_a",
                    network=network,
                    training=mine.teacher,
                    train=data,
                    heldout=data,
                    augment=setting.augment,
                    draws=setting.draws("train/teacher_a"),
                    dropout_seed=0,
                )
            )
    return made


_together: list[Barrier] = []


def _begin(barrier: Barrier) -> None:
    """In each process: one thread, and where it waits for the others."""
    torch.set_num_threads(1)
    _together.append(barrier)


def ours(kind: Kind, seeds: range) -> Seconds:
    """A few epochs of a share of the networks, while the other shares compute, too."""
    recipe = find_preset("sine", "paper").recipe
    data = sine(recipe.data.train, recipe.data.noise, generator(0, "bench"))
    share = jobs(kind, recipe, data, seeds)
    _together[0].wait()
    start = Seconds.now()
    for _ in fit_together(share):
        pass
    return Seconds.now().since(start)


def measure(networks: int, repeats: int) -> None:
    """Measure and print everything."""
    recipe = find_preset("sine", "paper").recipe
    data = sine(recipe.data.train, recipe.data.noise, generator(0, "bench"))
    cores = processes.available_threads()
    print(
        f"torch {torch.__version__}, {cores} processes of one thread against a plain loop; sine, "
        f"preset paper, {networks} repetitions at once, medians of {repeats}",
        flush=True,
    )
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")
    shares = [range(i, networks, cores) for i in range(cores)]
    total = dict.fromkeys(_CLOCKS, (0.0, 0.0))
    with context.Pool(cores, _begin, (context.Barrier(cores),)) as pool:
        for kind in kinds(recipe):
            times: list[tuple[Seconds, Seconds]] = []
            for _ in range(repeats + 1):
                alone = plain(kind, data, recipe.teacher.batch_size)
                each = pool.starmap(ours, [(kind, share) for share in shares], chunksize=1)
                together = Seconds(
                    max(took.wall for took in each) / networks / EPOCHS,
                    sum(took.processor for took in each) / cores / networks / EPOCHS,
                )
                times.append((alone, together))
            for clock in _CLOCKS:
                one, many = (
                    statistics.median(getattr(turn[which], clock) for turn in times[1:])
                    for which in (0, 1)
                )
                so_far = total[clock]
                total[clock] = so_far[0] + kind.epochs * one, so_far[1] + kind.epochs * many
                print(
                    f"{kind.title:20} {kind.epochs:5} epochs, {clock:9}  plain {one * 1e3:7.1f} ms"
                    f"   ours {many * 1e3:6.2f} ms   {one / many:5.1f} × as fast",
                    flush=True,
                )
    for clock in _CLOCKS:
        one, many = total[clock]
        print(
            f"the whole row, 50 repetitions, {clock:9}  plain {50 * one / 60:4.0f} min   "
            f"ours {50 * many / 60:5.1f} min   {one / many:5.1f} × as fast"
            f"{verdict(one / many >= GOAL)}"
        )


if __name__ == "__main__":
    measure(int(sys.argv[1]), int(sys.argv[2]))
