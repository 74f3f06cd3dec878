"""Many small networks of one architecture trained as one batched network."""

from merge_core.ensembles.together import EpochOfMany, fit_together

__all__ = ["EpochOfMany", "fit_together"]
