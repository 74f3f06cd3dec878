"""From JSON and from what a user typed to settings, checked against the types of the fields."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, Literal

from merge_core.errors import RecipeError
from merge_core.schedules import KINDS, Schedule, as_kind
from merge_core.steering import STEERS, Steer


def _fields(kind: Any) -> dict[str, Any]:
    """Field name → resolved type of what can be set of a settings class."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _unknown(key: str, name: str, known: list[str]) -> RecipeError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}."
    return RecipeError(f"The recipe has no setting {key!r}: {name!r} is unknown; {hint}")


def build(kind: Any, value: Any, path: str) -> Any:
    """A settings value from parsed JSON, checked against the field types."""
    if kind == Schedule:  # one without a kind is of the only kind that early versions knew
        return _of_a_kind(KINDS, value, path, "growth")
    if kind == Steer:
        return _of_a_kind(STEERS, value, path)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        where = path or "the recipe"
        if not isinstance(value, dict):
            raise RecipeError(f"The recipe's {where} is {value!r}, but a JSON object was expected.")
        hints = _fields(kind)
        renewed = getattr(kind, "renewed", None)  # of one that knows what an earlier version wrote
        if renewed is not None:
            value = renewed(value)
        for key in value:
            if key not in hints:
                raise _unknown(f"{path}.{key}".lstrip("."), key, list(hints))
        required = {
            field.name
            for field in dataclasses.fields(kind)
            if field.init and field.default is dataclasses.MISSING
        }
        missing = sorted(required - value.keys())
        if missing:
            raise RecipeError(f"The recipe lacks {', '.join(missing)} in {where}; add it.")
        return kind(
            **{key: build(hints[key], v, f"{path}.{key}".lstrip(".")) for key, v in value.items()}
        )
    if typing.get_origin(kind) is tuple:
        inner, *others = typing.get_args(kind)
        if not isinstance(value, list):
            raise RecipeError(f"The recipe's {path} is {value!r}, but a list was expected.")
        if Ellipsis not in others and len(value) != 1 + len(others):
            raise RecipeError(
                f"The recipe's {path} has {value!r}, but {1 + len(others)} numbers were expected; "
                f"on the command line they stand like 0:0.01."
            )
        return tuple(build(inner, item, path) for item in value)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise RecipeError(
                f"The recipe got {path}={value!r}, but it must be one of {', '.join(choices)}."
            )
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RecipeError(f"The recipe got {path}={value!r}, but {_KIND_WORDS[kind]} was expected.")
    return value


def _of_a_kind(kinds: Mapping[str, Any], value: Any, path: str, usual: str | None = None) -> Any:
    """A value of the kind that its JSON names."""
    if not isinstance(value, dict):
        raise RecipeError(f"The recipe's {path} is {value!r}, but a JSON object was expected.")
    kind = value.get("kind", usual)
    if kind not in list(kinds):
        raise RecipeError(
            f"The recipe got {path}.kind={kind!r}, but it must be one of {', '.join(kinds)}."
        )
    return build(kinds[kind], {k: v for k, v in value.items() if k != "kind"}, path)


_KIND_WORDS = {int: "a whole number", float: "a number", str: "a word"}


def _parse(kind: Any, text: str, key: str) -> Any:
    """A value of type `kind` from what a user typed: `1,2`, or tuples of tuples `1:2,3:4`."""
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)[0]
        parts = [part for part in text.split(",") if part]
        if typing.get_origin(inner) is tuple:
            number = typing.get_args(inner)[0]
            return [[_parse(number, each, key) for each in part.split(":")] for part in parts]
        return [_parse(inner, part, key) for part in parts]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise RecipeError(
                f"The recipe got {key}={text!r}, but {_KIND_WORDS[kind]} was expected."
            ) from error
    return text


def as_text(value: object) -> str:
    """The value of a setting as `--set` takes it: `8`, `0.7,0.3`, `0:0.01,1:10`."""
    if not isinstance(value, tuple):
        return str(value)
    return ",".join(
        ":".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in value
    )


def replaced(value: Any, path: list[str], text: str, key: str) -> Any:
    """`value` with the setting at `path` replaced by what `text` says.

    A λ schedule's kind can be replaced, too: the new one has the ends of the old.
    """
    hints = _fields(type(value))
    name = path[0]
    if name not in hints:
        raise _unknown(key, name, list(hints))
    kind = hints[name]
    if kind == Schedule:
        kind = type(getattr(value, name))
        if path[1:] == ["kind"]:
            return dataclasses.replace(value, **{name: as_kind(text, getattr(value, name))})
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if len(path) == 1:
            names = [*(["kind"] if hints[name] == Schedule else []), *_fields(kind)]
            parts = ", ".join(f"{key}.{part}" for part in names)
            raise RecipeError(f"The setting {key!r} has parts; set one of {parts}.")
        new = replaced(getattr(value, name), path[1:], text, key)
    elif len(path) > 1:
        raise RecipeError(
            f"The setting {name!r} has no parts, but {key!r} was given; set {name!r}."
        )
    else:
        new = build(kind, _parse(kind, text, key), key)
    return dataclasses.replace(value, **{name: new})
