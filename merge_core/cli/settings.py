"""Settings of a recipe as they are written on the command line."""

from collections.abc import Iterable

from merge_core.errors import RecipeError


def pairs(settings: Iterable[str]) -> dict[str, str]:
    """`key=value` texts as a mapping.

    Raises:
        RecipeError: one has no value.
    """
    found = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(
                f"The setting {text!r} has no value; write --set key=value, "
                f"for example --set gating.epochs=8."
            )
        found[key.strip()] = value.strip()
    return found
