"""The proof before a merge: a network whose channel graph breaks its laws is refused."""

from torch import Tensor, nn

from merge_core.channels import ChannelGraph, LawErrors, check, trace
from merge_core.description import LAW_TOLERANCES, require_lawful


def proved(network: nn.Module, example: Tensor, name: str) -> ChannelGraph:
    """The channel graph of a network that is about to be merged, with its laws measured.

    Args:
        network: of the architecture of all teachers; it is not changed.
        example: a batch of inputs, of two or more examples where the network has batch norms.
        name: what people call the architecture.

    Raises:
        GraphError: the network cannot be traced, or its graph breaks a law.
    """
    graph = trace(network, example)
    require_laws(network, graph, example, name)
    return graph


def require_laws(network: nn.Module, graph: ChannelGraph, example: Tensor, name: str) -> LawErrors:
    """The measured errors of the laws, none above what rounding explains.

    Raises:
        GraphError: one is larger, so that a merge would not compute what it should.
    """
    errors = check(network, graph, example)
    precision = str(example.dtype).removeprefix("torch.")
    require_lawful(name, errors.worst, LAW_TOLERANCES[precision])
    return errors
