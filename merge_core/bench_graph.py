"""How fast the channel graph is: as a program, because it needs torch.

    python -P -m merge_core.bench_graph REPEATS [FAMILY ...]

prints each measurement as it is made. Everything that is compared is measured in turns in one
process, and medians are compared. Goals: a trace costs at most 3 forward passes of the same batch
and less than 3 s; the peak memory of `concatenate` is at most that of the teachers and the result
and a tenth; a gated training step takes at most 15 % longer than the same step without gates.
"""

import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from merge_core import inspected
from merge_core.channels import concatenate, select, trace
from merge_core.channels.rebuild import named_tensors
from merge_core.devices import laid_out, layout_for
from merge_core.gates import gate
from merge_core.inspection import build
from merge_core.models import MODELS
from merge_core.queue import SMALL

TRACE_GOAL, TRACE_SECONDS, MEMORY_GOAL, GATES_GOAL = 3.0, 3.0, 1.1, 1.15
_SECONDS_OF_STEPS = 6.0
"""Short steps take more turns, until all of them together took as long."""


def medians(repeats: int, *jobs: Callable[[], object], at_least: float = 0.0) -> list[float]:
    """Median seconds of each job; the jobs take turns, after one turn that does not count.

    Args:
        repeats: how many turns.
        jobs: what is measured.
        at_least: seconds; short jobs take more turns, until all together took as long.
    """
    times: list[list[float]] = [[] for _ in jobs]
    for job in jobs:
        job()
    while len(times[0]) < repeats or sum(map(sum, times)) < at_least:
        for job, seconds in zip(jobs, times, strict=True):
            start = time.perf_counter()
            job()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(each) for each in times]


def verdict(*met: bool) -> str:
    """What stands at the end of a line."""
    return "" if all(met) else "  missed"


def bytes_of(model: nn.Module) -> int:
    """Memory of all parameters and buffers."""
    return sum(tensor.nbytes for tensor in named_tensors(model).values())


def copied(model: nn.Module) -> list[Tensor]:
    """Every tensor of a network, cloned: what `concatenate` and `select` cannot beat."""
    return [tensor.detach().clone() for tensor in named_tensors(model).values()]


def tracing(model: nn.Module, example: Tensor, repeats: int) -> str:
    """One line: a trace against a forward pass of the same batch."""
    model.eval()
    with torch.no_grad():
        traced, forward = medians(repeats, lambda: trace(model, example), lambda: model(example))
    ratio = traced / forward
    met = verdict(ratio <= TRACE_GOAL, traced < TRACE_SECONDS)
    return f"trace {traced:6.2f} s = {ratio:6.1f} forward passes of {forward:5.2f} s{met}"


def operations(model: nn.Module, example: Tensor, repeats: int) -> str:
    """One line: `concatenate` and half of it selected, each against copying the same bytes."""
    graph = trace(model, example)
    big = concatenate([model, model], graph)
    big_graph = trace(big, example)
    halves = {space.name: torch.arange(space.size) for space in graph.free}
    joined, copy_big, chosen, copy_small = medians(
        repeats,
        lambda: concatenate([model, model], graph),
        lambda: copied(big),
        lambda: select(big, big_graph, halves),
        lambda: copied(model),
    )
    return (
        f"concatenate {joined:5.2f} s = {joined / copy_big:5.1f} copies, "
        f"select {chosen:5.2f} s = {chosen / copy_small:5.1f} copies"
    )


def peak_memory(model: nn.Module, example: Tensor) -> str:
    """One line: the most that tensors hold while `concatenate` works, teachers included."""
    other = copy.deepcopy(model)
    graph = trace(model, example)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        big = concatenate([model, other], graph)
    teachers, result = bytes_of(model) + bytes_of(other), bytes_of(big)
    ratio = (teachers + _highest(recorded)) / (teachers + result)
    return (
        f"peak memory of concatenate {ratio:.2f} × (teachers + result of {result / 2**20:.0f} MiB)"
        f"{verdict(ratio <= MEMORY_GOAL)}"
    )


def _highest(recorded: profile) -> int:
    """The most bytes that tensors made in a profile held at once."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "trace.json"
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = [each for each in events if each["name"] == "[memory]"]
    held = accumulate(
        each["args"]["Bytes"] for each in sorted(changes, key=lambda each: each["ts"])
    )
    return max(held, default=0)


def gated_step(model: nn.Module, example: Tensor, repeats: int, at_least: float = 0.0) -> str:
    """One line: a training step of the gated big student against one of the big student.

    The batch lies in memory as in training; short steps take more turns, for `at_least` seconds.
    """
    graph = trace(model, example)
    big = concatenate([model, model], graph)
    big_graph = trace(big, example)
    example = laid_out(example, layout_for(big))
    draws = torch.Generator().manual_seed(0)
    gated = gate(big, big_graph, start=3.0, spread=0.01, draws=draws).train()
    plain = torch.optim.SGD(big.parameters(), lr=1e-3, momentum=0.9)
    both = torch.optim.SGD(gated.parameters(), lr=1e-3, momentum=0.9)
    targets = torch.zeros(len(example), dtype=torch.long)

    def step(network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad(set_to_none=True)
        output = network(example)
        loss = cross_entropy(output, targets)
        loss.backward()
        optimiser.step()

    without, with_gates = medians(
        repeats,
        lambda: step(big, plain),
        lambda: step(gated, both),
        at_least=at_least,
    )
    ratio = with_gates / without
    return (
        f"gated step {with_gates * 1e3:7.1f} ms, without gates {without * 1e3:7.1f} ms: "
        f"{(ratio - 1) * 100:+.0f} %{verdict(ratio <= GATES_GOAL)}"
    )


GATED: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "patch-cnn": (MODELS["patch-cnn"], (128, 3, 32, 32)),
    "lenet": (MODELS["lenet"], (64, 1, 28, 28)),
    "resnet18": (lambda: build("resnet18"), (64, 3, 64, 64)),
    "mobilenet_v2": (lambda: build("mobilenet_v2"), (64, 3, 64, 64)),
}
"""Networks whose steps are measured, with the shape of a batch in the quick recipes."""


def measure(repeats: int, families: list[str]) -> None:
    """Measure and print everything."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {repeats}")
    print(f"\nOne network of each family, batches of {inspected.BATCH}", flush=True)
    for name in families:
        model = build(name)
        example = torch.randn(inspected.BATCH, *inspected.usual_input(name))
        print(f"{name:18} {tracing(model, example, repeats)}", flush=True)
        print(f"{'':18} {operations(model, example, repeats)}", flush=True)
        print(f"{'':18} {peak_memory(model, example)}", flush=True)
    print(
        "\nTraining steps of the big student, batches and threads of the quick recipes", flush=True
    )
    threads = torch.get_num_threads()
    for name, (make, shape) in GATED.items():
        torch.set_num_threads(1 if name in SMALL else threads)
        line = gated_step(make(), torch.randn(shape), repeats, _SECONDS_OF_STEPS)
        print(
            f"{name:18} threads: {torch.get_num_threads()}, batches of {shape[0]:3}: {line}",
            flush=True,
        )


if __name__ == "__main__":
    measure(int(sys.argv[1]), sys.argv[2:] or list(inspected.FAMILIES.values()))
