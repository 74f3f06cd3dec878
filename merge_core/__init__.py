"""Netweld's core: merge trained networks of one architecture into a better one of the same size.

Nothing is imported here: looking at finished runs must not load torch.
"""
