"""Who matches whom: one-to-one, softly, in pairs, and consistently among several networks."""

from merge_core.matching.activations import distance, likeness, match_activations, sharpened
from merge_core.matching.assignment import hungarian
from merge_core.matching.cycles import ManyMatching, between, match_many, merge_many, sources
from merge_core.matching.soft import blend, mix, sinkhorn, soft_top_k
from merge_core.matching.weights import WeightMatching, match_weights
from merge_core.matching.zips import match_zips, zip_pairs, zipped

__all__ = [
    "ManyMatching",
    "WeightMatching",
    "between",
    "blend",
    "distance",
    "hungarian",
    "likeness",
    "match_activations",
    "match_many",
    "match_weights",
    "match_zips",
    "merge_many",
    "mix",
    "sharpened",
    "sinkhorn",
    "soft_top_k",
    "sources",
    "zip_pairs",
    "zipped",
]
