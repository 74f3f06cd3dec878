"""The architectures that recipes name, as plain modules."""

from merge_core.models.building import MODELS, build, load_student

__all__ = ["MODELS", "build", "load_student"]
