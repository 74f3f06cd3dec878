"""One family of errors: each says in one sentence what was given, what was expected, what to do.

`NetweldError` and its children are for users and are shown as they stand, on a page or in a
terminal, never with a traceback. Broken invariants of our own code stay `assert` statements.
"""


class NetweldError(Exception):
    """Something a user can mend; `str(error)` is the sentence to show."""


class RecipeError(NetweldError):
    """A recipe, preset, key or value that does not exist or does not fit."""


class DataError(NetweldError):
    """A data set that is missing, damaged or of the wrong shape."""


class CheckpointError(NetweldError):
    """A file of weights that cannot be read, is not safe to read, or does not fit a network."""


class DeviceError(NetweldError):
    """A device that this machine does not have."""


class GraphError(NetweldError):
    """A network whose channels cannot be followed, or an operation its channel graph forbids."""


class DivergedError(NetweldError):
    """A loss that became NaN or infinite; names the stage and the step."""


class StoreError(NetweldError):
    """A run, artifact or database that is missing, damaged or held by somebody else."""
