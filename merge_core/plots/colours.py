"""The colours of what is compared: strategies of a table, stages of picked runs."""

from collections.abc import Sequence

from merge_core.plots.style import CONTROL, ENSEMBLE, STUDENT, TEACHER_COLOURS, stage_colour
from merge_core.stages import STAGE_BY_KEY
from merge_core.views.scored import TITLES

OURS = "#66A61E"
_COLOURS = ("#56B4E9", ENSEMBLE, "#E69F00", "#8172B3", "#999933", "#AA4499")
_RECIPES = ("#009E73", "#0072B2", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00")


def colour_of(key: str) -> str:
    """The colour of a strategy: green merges, blue teachers, grey controls, the rest in turn.

    Picked runs, whose keys begin with a number, have a colour for each recipe.
    """
    known = {"student": STUDENT, "ours": OURS, "teacher": TEACHER_COLOURS[0]}
    if key in known:
        return known[key]
    if key not in TITLES:
        return _RECIPES[int(key.partition(":")[0]) % len(_RECIPES)]
    if TITLES[key].startswith("control"):
        return CONTROL
    return _COLOURS[list(TITLES).index(key) % len(_COLOURS)]


def colours_of(keys: Sequence[str]) -> dict[str, str]:
    """The colour of each of some strategies; of picked runs of one recipe that of each stage."""
    groups = {key.partition(":")[0] for key in keys if ":" in key}
    if len(groups) != 1:
        return {key: colour_of(key) for key in keys}
    stages = {key: STAGE_BY_KEY.get(key.partition(":")[2]) for key in keys}
    return {
        key: STUDENT if stage is None else stage_colour(stage.key, stage.role)
        for key, stage in stages.items()
    }
