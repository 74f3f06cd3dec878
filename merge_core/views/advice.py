"""A check before a budget is spent: does one network still learn, or does a merge pay?

Merging pays where one network has saturated. A network tells that by how much it has left to learn
on its own training examples: where it gets nearly all of them right, further epochs change little,
while several networks together still know more than each. A loss on held-out examples that rises
tells it, too: what is learned from there on is of the training examples only. Where neither is the
case, as under strong augmentation, one network trained for longer is the better use of the budget.

The bounds were set by the settings of the README's tables, which is no proof that they hold
elsewhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from merge_core.recipes import Experiment

LEARNED = 0.85
"""Training accuracy from which on a network has saturated. At the end of their training, teachers
had 0.90 on `textures` (quick), where three times the epochs added nothing, and 0.80 on `photos`
(quick), where they added four points."""
RISEN = 0.03
"""A held-out loss that ends by this share above its lowest rises. LeNet on Imagewoof ended 4 %
above after 25 epochs, and three times as many made it worse; teachers on `photos` with 24 epochs,
whom four times as many made better, ended 0 to 2 % above."""
GAINED = 0.02
"""A held-out accuracy that gained as much over the last quarter of the epochs still grows."""
_FALLING = 0.1
"""A loss that fell by this share of itself over the second half of the epochs still falls."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What a teacher's learning curve says.

    Attributes:
        improving: whether one network still learns.
        sentence: the same in words, with the figures that it rests on.
    """

    improving: bool
    sentence: str


def advice(recipe: Experiment, metrics: Iterable[Mapping[str, Any]]) -> Advice | None:
    """Whether a merge pays, from the learning curve of one teacher.

    Args:
        recipe: the run's recipe.
        metrics: rows "epoch", "name" and "value" of one teacher's training, as
            `RunReader.metrics("teacher_a")` has them.

    Returns:
        None where the curve is too short to tell anything.
    """
    curves: dict[str, list[float]] = {}
    for row in sorted(metrics, key=lambda row: row["epoch"]):
        curves.setdefault(row["name"], []).append(float(row["value"]))
    if recipe.metric == "accuracy":
        return _of_classes(curves)
    return _of_numbers(curves)


def _of_classes(curves: Mapping[str, list[float]]) -> Advice | None:
    train, heldout = curves.get("train_accuracy", []), curves.get("heldout_accuracy", [])
    if not train or not heldout:
        return None
    found = (
        f"After {len(train)} epochs a teacher gets {train[-1]:.0%} of its training examples right "
        f"and {heldout[-1]:.0%} of the held-out ones"
    )
    if (told := _risen(curves)) is not None:
        best, lowest, now = told
        return Advice(
            improving=False,
            sentence=f"{found}, and its held-out loss has risen from {lowest:.3g} after epoch "
            f"{best} to {now:.3g}: more epochs teach one network only its training "
            "examples, so a merge is likely to pay.",
        )
    if train[-1] < LEARNED:
        return Advice(
            improving=True,
            sentence=f"{found}: one network still has much to learn, so training it for longer is "
            "likely to beat a merge of the same cost.",
        )
    return Advice(
        improving=False,
        sentence=f"{found}: one network has little left to learn from more epochs, so a merge is "
        "likely to pay.",
    )


def _risen(curves: Mapping[str, list[float]]) -> tuple[int, float, float] | None:
    """The epoch of the lowest held-out loss, that loss and the last; None where it does not rise.

    All of the last quarter is above the lowest, so that one bad epoch is no rise; and the network
    goes on to learn its training examples, but gets no more of the held-out ones right.
    """
    losses = curves.get("heldout_loss", [])
    train, heldout = curves["train_accuracy"], curves["heldout_accuracy"]
    if len(losses) < 4:
        return None
    late = max(1, len(losses) // 4)
    lowest = min(losses)
    rises = min(losses[-late:]) > (1 + RISEN) * lowest
    learns = train[-1] >= max(train[:-late])
    gains = max(heldout[-late:]) > max(heldout[:-late]) + GAINED
    if not rises or not learns or gains:
        return None
    return losses.index(lowest) + 1, lowest, losses[-1]


def _of_numbers(curves: Mapping[str, list[float]]) -> Advice | None:
    losses = curves.get("heldout_loss", [])
    if len(losses) < 4:
        return None
    quarter = max(1, len(losses) // 4)
    middle = min(losses[: len(losses) // 2][-quarter:])
    end = min(losses[-quarter:])
    fell = (middle - end) / middle if middle > 0 else 0.0
    found = (
        f"Over the second half of {len(losses)} epochs a teacher's best held-out loss went from "
        f"{middle:.3g} to {end:.3g}"
    )
    if fell > _FALLING:
        return Advice(
            improving=True,
            sentence=f"{found}: one network still learns, so longer training will gain, too. "
            "Compare a merge with one network trained for as long before you trust it.",
        )
    return Advice(
        improving=False,
        sentence=f"{found}: one network has settled, so a merge is likely to pay.",
    )
