"""Networks that are tied together while they train: pulled, sharing layers, or averaged."""

from merge_core.coupling.strategy import average, couple

__all__ = ["average", "couple"]
