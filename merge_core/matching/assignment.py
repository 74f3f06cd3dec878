"""The assignment problem."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def hungarian(similarity: Tensor) -> Tensor:
    """The one-to-one matching of rows with columns whose summed similarity is largest.

    Args:
        similarity: `(size, size)`, finite.

    Returns:
        For every row the column that matches it: int64 of shape `(size,)`, on the CPU.
    """
    _, columns = linear_sum_assignment(similarity.detach().cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).long()
