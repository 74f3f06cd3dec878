"""Runs on disk: one SQLite index, one SQLite database per run, arrays as safetensors (no torch).

```
<home>/index.sqlite                       runs, commands, turns; written by whoever steers
<home>/runs/<run>/run.sqlite              everything about one run; written by its worker
<home>/runs/<run>/<artifact>.safetensors  weights and checkpoints, with their hash in run.sqlite
<home>/runs/<run>/inputs/<i>/<file>       copies of the files of a comparison's teachers
<home>/runs/<run>/worker.log              what the worker printed
```
Both databases are in WAL mode and readers open them read-only, so looking at a run can neither
block nor end it. Every event is one transaction: what was acknowledged survives a SIGKILL.
"""

from merge_core.store.databases import held
from merge_core.store.index import Command, Store
from merge_core.store.reader import RunReader
from merge_core.store.steered import Answer, Branch, ForkPoint
from merge_core.store.summaries import RunSummary
from merge_core.store.turns import Limits, Spent, Turn, Turns, file_of, folder_of, key_of, kind_of
from merge_core.store.writer import RunWriter

__all__ = [
    "Answer",
    "Branch",
    "Command",
    "ForkPoint",
    "Limits",
    "RunReader",
    "RunSummary",
    "RunWriter",
    "Spent",
    "Store",
    "Turn",
    "Turns",
    "file_of",
    "folder_of",
    "held",
    "key_of",
    "kind_of",
]
