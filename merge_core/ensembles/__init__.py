"""Many small networks of one architecture trained as one batched network."""

from merge_core.ensembles.together import EpochOfMany, fit_together, group_size

__all__ = ["EpochOfMany", "fit_together", "group_size"]
