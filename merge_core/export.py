"""A run's merged network as files to take away: weights with their story, and code that loads them.

The weights are one safetensors file. Its metadata holds, as text: "format" (`FORMAT`), "netweld"
(the version that wrote it), "run", "stage" (which stage's network it is), "recipe" (as
`Recipe.to_json` writes it), "provenance" (JSON, space → for each channel `[teacher, index]`, 0 for
teacher A) and "scores" (JSON, split → metric → value).
"""

import json
from pathlib import Path

from merge_core import places
from merge_core.errors import StoreError
from merge_core.recipes import Comparison
from merge_core.stages import STAGE_BY_KEY
from merge_core.store import RunReader, artifacts

FORMAT = "netweld-student-1"

_SNIPPET = '''\
"""The merged network of netweld run {run}: {story}."""

from pathlib import Path

from merge_core.models import load_student

network = load_student(Path(__file__).with_name("{run}.safetensors"))
print(network)
'''


def student_file(reader: RunReader) -> bytes:
    """The content of the safetensors file.

    Raises:
        StoreError: the run has returned no network yet, or its file is missing or damaged.
    """
    recipe = reader.recipe
    stage = returned_stage(reader)
    scores: dict[str, dict[str, float]] = {}
    for row in reader.scores():
        if row["stage"] == stage:
            scores.setdefault(row["split"], {})[row["metric"]] = row["value"]
    provenance = {space: origin.tolist() for space, origin in reader.provenance().items()}
    metadata = {
        "format": FORMAT,
        "netweld": places.netweld_version(),
        "run": reader.name,
        "stage": stage,
        "recipe": recipe.to_json(),
        "provenance": json.dumps(provenance),
        "scores": json.dumps(scores),
    }
    return artifacts.to_bytes(reader.artifact(stage), metadata)


def snippet(reader: RunReader) -> str:
    """A short program that loads the file from beside itself.

    Raises:
        StoreError: the run has returned no network yet.
    """
    stage = returned_stage(reader)
    metric = reader.recipe.metric
    score = reader.score(stage, "test", metric)
    story = f"{STAGE_BY_KEY[stage].title.lower()}, test {metric} {score:.4g}"
    return _SNIPPET.format(run=reader.name, story=story)


def write(reader: RunReader, directory: Path, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write the weights and the program into a directory; returns both paths.

    Raises:
        StoreError: there is no network yet, the directory cannot be written, or, unless
            `overwrite`, one of the files is there already.
    """
    weights = directory / f"{reader.name}.safetensors"
    program = directory / f"{reader.name}.py"
    for path in (weights, program):
        if path.exists() and not overwrite:
            raise StoreError(f"{path} exists already; add --force to replace it.")
    content, text = student_file(reader), snippet(reader)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        artifacts.write_whole(weights, content)
        artifacts.write_whole(program, text.encode())
    except OSError as error:
        raise StoreError(
            f"The directory {directory} cannot be written ({error.strerror}); choose another one."
        ) from error
    return weights, program


def returned_stage(reader: RunReader) -> str:
    """The stage whose network is the run's result.

    Raises:
        StoreError: the run has returned no network yet, or is a comparison, which returns none.
    """
    if isinstance(reader.recipe, Comparison):
        raise StoreError(
            f"Run {reader.name} is a comparison, but a merge was expected; give a run of a recipe "
            f"that merges."
        )
    returned = reader.facts().get("returned")
    if returned is None:
        raise StoreError(
            f"Run {reader.name} is {reader.status()['state']} and has returned no network; "
            f"let it finish first."
        )
    return returned
