"""A plausible search without any training: for looking only."""

import math
from pathlib import Path

from merge_core.presets import find_preset
from merge_core.search import Numbers, Search, SearchFile, Trial

TRIED: tuple[Numbers, ...] = ((0.01, 0.05), (0.3, 0.002), (0.02, 0.4), (2.0, 4.0), (0.05, 0.2))
FAILED = 3


def make(home: Path, *, name: str = "sine") -> SearchFile:
    """A search of five trials: the fourth failed, the fifth is the best; test scores mislead."""
    file = SearchFile(Search(recipe=find_preset(name, "quick").recipe), home)
    file.begin()
    sign = 1 if name == "sine" else -1
    for number, numbers in enumerate(TRIED):
        if number == FAILED:
            why = "The loss is not finite; lower the learning rate."
            file.append([Trial(number=number, numbers=numbers, seconds=0.5, failed=why)])
            continue
        far = abs(math.log10(numbers[0] / 0.05)) + abs(math.log10(numbers[1] / 0.2))
        score = round(0.5 + sign * 0.1 * far, 4)
        file.append(
            [
                Trial(
                    number=number, numbers=numbers, cut_heldout=score + sign * 0.1, heldout=score,
                    test=1 - score, seconds=2.5,
                )
            ]
        )  # fmt: skip
    return file
