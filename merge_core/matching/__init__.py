"""Who matches whom: one-to-one, softly, in pairs, and consistently among several networks."""

from merge_core.matching.activations import likeness, match_activations
from merge_core.matching.assignment import hungarian
from merge_core.matching.cycles import ManyMatching, between, match_many, merge_many
from merge_core.matching.soft import mix, sinkhorn, soft_top_k
from merge_core.matching.weights import WeightMatching, match_weights
from merge_core.matching.zips import match_zips, zip_pairs, zipped

__all__ = [
    "ManyMatching",
    "WeightMatching",
    "between",
    "hungarian",
    "likeness",
    "match_activations",
    "match_many",
    "match_weights",
    "match_zips",
    "merge_many",
    "mix",
    "sinkhorn",
    "soft_top_k",
    "zip_pairs",
    "zipped",
]
