"""How fast networks learn from images; needs torch.

    python -P -m merge_core.bench_train IMAGES REPEATS DEVICE

ResNet20 learns from random bytes of CIFAR-10's shape: in the plain way (torchvision's transforms
for each picture, a DataLoader with a worker for each core, float32, `loss.item()` in every step; in
a process of its own whose memory and waiting threads are as the system has them, without
`processes.HEAP` and `processes.WAITS`) and by `training.fit`, both with the paper's settings of a
teacher; ours in the precision of the preset, and in float32. Then the big student learns by
`training.fit`, with gates and without. Epochs are timed in turns, after one of each that does not
count, and medians are compared: by the clock and, because that says little where other programs
keep the cores busy, in processor time of the process and its workers. Goals: at least 1.4 times the
plain way's images/s on a processor and 10 times on a CUDA device; with gates at least 0.85 times
those without. ResNet20 also learns in bfloat16, as compiled code, and both, which have no goal:
they are for devices that gain by them, and whether this one does is what their lines say, and how
long it must train until the compilation is repaid.

On a CUDA device also: which part of a step's time the memory needs at least. That counts every
operation of a step as reading its tensors once and writing its results once, at the speed at which
a large tensor is copied.
"""

import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import transforms

from merge_core import compiling, devices, processes
from merge_core.architectures import SHAPES
from merge_core.bench_graph import medians, verdict
from merge_core.channels import concatenate, trace
from merge_core.data import Dataset, Normalisation, Split, augmentation
from merge_core.data.pools import IMAGENET, Arrays
from merge_core.devices import generator
from merge_core.errors import DeviceError
from merge_core.events import EpochFinished
from merge_core.methods import LEARNED_GATES, Setting
from merge_core.models import build
from merge_core.precision import has_bfloat16, settled
from merge_core.presets import find_preset
from merge_core.recipes import Recipe, Training
from merge_core.training import Course, Job, fit

GOAL, GOAL_CUDA, GATES_GOAL = 1.4, 10.0, 0.85
SHAPE = SHAPES["cifar10"]
_AUGMENT = "flips and shifts"
_COPIED = 2**28


def pool(count: int) -> Arrays:
    """Random images with random labels."""
    draws = generator(0, "bench")
    size = (count, SHAPE.channels, SHAPE.side, SHAPE.side)
    return Arrays(
        torch.randint(256, size, dtype=torch.uint8, generator=draws),
        torch.randint(SHAPE.classes, (count,), generator=draws),
    )


class Pictures(TorchDataset[tuple[Tensor, int]]):
    """A pool as torchvision's data sets are: every picture is changed when it is asked for."""

    def __init__(self, images: Arrays) -> None:
        self.images = images.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.labels.tolist()
        self.change = transforms.Compose(
            [
                transforms.RandomCrop(SHAPE.side, padding=SHAPE.side // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(*IMAGENET),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        pixels = self.change(Image.fromarray(self.images[number]))
        assert isinstance(pixels, Tensor)
        return pixels, self.labels[number]


def plain(images: Arrays, training: Training, device: str, workers: int) -> Callable[[], None]:
    """An epoch by the loop that anybody would write; the workers stay between epochs."""
    network = build("cifar-resnet20", 0, SHAPE).to(device).train()
    loader = DataLoader(
        Pictures(images),
        batch_size=training.batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device == "cuda",
    )
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=training.learning_rate,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )

    def epoch() -> None:
        total = 0.0
        for inputs, targets in loader:
            loss = cross_entropy(network(inputs.to(device)), targets.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


@contextmanager
def elsewhere(count: int, device: str, workers: int) -> Iterator[Callable[[], None]]:
    """An epoch of the plain way in a process of its own, which ends with the context."""
    tuned = {"GLIBC_TUNABLES": processes.HEAP, **processes.WAITS}
    environment = {
        key: value for key, value in processes.environment().items() if tuned.get(key) != value
    }
    command = [sys.executable, "-P", "-m", "merge_core.bench_train", "plain"]
    with subprocess.Popen(
        [*command, str(count), device, str(workers)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        asked, answered = process.stdin, process.stdout
        assert asked is not None
        assert answered is not None

        def epoch() -> None:
            asked.write("epoch\n")
            asked.flush()
            if not answered.readline():
                raise SystemExit("the plain loop has failed; see above")

        yield epoch  # Popen closes the pipes and waits; without more to read the process ends


def serve(count: int, device: str, workers: int) -> None:
    """The other side of `elsewhere`: an epoch for every line that comes in."""
    epoch = plain(pool(count), paper().teacher, device, workers)
    for _ in sys.stdin:
        epoch()
        print("done", flush=True)


def paper() -> Recipe:
    """The recipe whose settings everything has."""
    return find_preset("cifar100-resnet20", "paper").recipe


def jobs(images: Arrays, recipe: Recipe, device: str) -> dict[str, Job]:
    """Our jobs: the plain way's, in bfloat16, compiled, and both; the big student, also gated."""
    train = Split(images.images, images.labels, Normalisation.of(*IMAGENET))
    few = train.part(slice(4))
    data = Dataset(train, few, few).to(device)
    setting = Setting(
        recipe=recipe,
        data=data,
        augment=augmentation(_AUGMENT),
        draws=lambda purpose: generator(0, purpose, device),
        teachers=2,
    )
    teachers = [build("cifar-resnet20", seed, SHAPE).to(device) for seed in (0, 1)]
    big = concatenate(teachers, trace(teachers[0], setting.example))
    gated = LEARNED_GATES.job(big, trace(big, setting.example), setting)
    alone = Job(
        stage="alone",
        network=teachers[0],
        training=recipe.teacher,
        train=data.train,
        heldout=data.heldout,
        augment=setting.augment,
        draws=setting.draws("train"),
        dropout_seed=0,
    )
    halved = replace(alone, network=copy.deepcopy(alone.network), precision="bfloat16")
    compiled = replace(alone, network=copy.deepcopy(alone.network), code="compiled")
    both = replace(halved, network=copy.deepcopy(alone.network), code="compiled")
    ungated = replace(
        alone,
        stage="big",
        network=copy.deepcopy(big),
        training=recipe.gating,
        precision=gated.precision,
    )
    return {
        "alone": alone,
        "halved": halved,
        "compiled": compiled,
        "both": both,
        "ungated": ungated,
        "gated": gated,
    }


def epochs(job: Job) -> Callable[[], None]:
    """The next epoch of a job."""
    events = fit(job)

    def epoch() -> None:
        while not isinstance(next(events), EpochFinished):
            pass

    return epoch


def compiled(jobs: dict[str, Job]) -> dict[str, float]:
    """Compile what learns as compiled code; the seconds by the clock that each has taken."""
    taken = {}
    for name, job in jobs.items():
        course = Course(job)
        if course.compiles:
            start = time.perf_counter()
            course.rehearse()
            taken[name] = time.perf_counter() - start
    return taken


def repaid(taken: float, before: float, after: float) -> str:
    """One line: how long a network must train until its compilation is repaid.

    Args:
        taken: seconds that it has taken.
        before, after: seconds of an epoch without it and with it.
    """
    if after >= before:
        return f"compiled in {taken:.0f} s, which is never repaid"
    minutes = taken / (1 - after / before) / 60
    return f"compiled in {taken:.0f} s, repaid after {minutes:.1f} minutes of training without it"


def clocks() -> tuple[float, float]:
    """Seconds by the clock, and on the processor: of this process and of its workers."""
    workers = (each.cpu_times() for each in psutil.Process().children(recursive=True))
    processor = time.process_time() + sum(each.user + each.system for each in workers)
    return time.perf_counter(), processor


def timed(repeats: int, *turns: Callable[[], None]) -> list[tuple[float, ...]]:
    """Median seconds of each by both clocks; they take turns, the first of which does not count."""
    times: list[list[tuple[float, ...]]] = [[] for _ in turns]
    for number in range(repeats + 1):
        for turn, taken in zip(turns, times, strict=True):
            start = clocks()
            turn()
            if number:
                taken.append(tuple(b - a for a, b in zip(start, clocks(), strict=True)))
    return [tuple(map(statistics.median, zip(*taken, strict=True))) for taken in times]


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write inside, every tensor of each once."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                each for each in tree_leaves((args, kwargs, result)) if torch.is_tensor(each)
            ]
            self.bytes += sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in tensors)
        return result


def traffic(job: Job) -> int:
    """Bytes that the operations of a step read and write."""
    course = Course(job)
    course.begin()
    with Traffic() as counted:
        course.backward()
        course.move()
    return counted.bytes


def bandwidth(device: str, repeats: int) -> float:
    """Bytes read and written in a second while a large tensor is copied."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = 10

    def copied() -> None:
        for _ in range(times):
            target.copy_(source)
        target[-1].item()  # wait for the device

    return 2 * _COPIED * times / medians(repeats, copied)[0]


def memory_part(job: Job, seconds: float, device: str, repeats: int) -> str:
    """One line: what the memory needs at least, as a part of the seconds of an epoch."""
    per_step, speed = traffic(job), bandwidth(device, repeats)
    least = per_step * job.steps_per_epoch / speed
    return (
        f"memory: {per_step / 2**20:.0f} MiB a step at {speed / 1e9:.0f} GB/s (a copy) need "
        f"{least / seconds:.0%} of the time"
    )


def measure(count: int, repeats: int, device: str, workers: int) -> None:
    """Measure and print everything.

    Args:
        count: images that an epoch learns from.
        repeats: epochs of each kind that count.
        device: "cpu", "cuda" or "mps".
        workers: processes that prepare pictures for the plain loop; 0 for none.
    """
    recipe, turns = paper(), repeats + 1
    recipe = replace(recipe, teacher=recipe.teacher.over(turns), gating=recipe.gating.over(turns))
    ours = jobs(pool(count), recipe, device)
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {workers} "
        f"workers, load {psutil.getloadavg()[0]:.1f}; epochs of {count} images, "
        f"medians of {repeats}",
        flush=True,
    )
    if not has_bfloat16(device):
        del ours["halved"], ours["both"]
    if compiling.missing(device):
        ours = {name: job for name, job in ours.items() if job.code == "eager"}
    compilations = compiled(ours)
    with elsewhere(count, device, workers) as theirs:
        taken = timed(repeats, theirs, *map(epochs, ours.values()))
    seconds = dict(zip(("plain", *ours), taken, strict=True))
    goal = GOAL_CUDA if device == "cuda" else GOAL
    mine = "alone" if settled(recipe.precision, device) == "float32" else "halved"
    for what, names, pair, least in (
        ("ResNet20", ("plain", "ours"), ("plain", mine), goal),
        ("ResNet20", ("plain", "float32"), ("plain", "alone"), None),
        ("ResNet20", ("float32", "bfloat16"), ("alone", "halved"), None),
        ("ResNet20", ("float32", "compiled"), ("alone", "compiled"), None),
        ("ResNet20", ("bfloat16", "both"), ("halved", "both"), None),
        ("big student", ("ungated", "gated"), ("ungated", "gated"), GATES_GOAL),
    ):
        if not seconds.keys() >= set(pair):
            print(f"{what:11} {names[1]}: this device cannot")
            continue
        both = (seconds[name] for name in pair)
        for clock, before, after in zip(("clock", "processor"), *both, strict=True):
            ratio = before / after
            print(
                f"{what:11} {clock:9}  {names[0]:7} {count / before:7.0f} images/s   "
                f"{names[1]:8} {count / after:7.0f} images/s   {ratio:5.2f} × as fast"
                f"{'' if least is None else verdict(ratio >= least)}",
                flush=True,
            )
        if pair[1] in compilations:
            epoch, faster = (seconds[name][0] for name in pair)
            print(f"{what:11} {repaid(compilations[pair[1]], epoch, faster)}", flush=True)
    if device == "cuda":
        print(memory_part(ours[mine], seconds[mine][0], device, repeats))


def main(count: int, repeats: int, wish: str) -> None:
    """Measure on the device that is asked for.

    Raises:
        DeviceError: this machine has no such device.
    """
    device = devices.resolve(wish)
    count = count or (25_600 if device == "cuda" else 1280)
    measure(count, repeats, device, processes.available_cores())


if __name__ == "__main__":
    if sys.argv[1] == "plain":
        serve(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        sys.exit()
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    except DeviceError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
