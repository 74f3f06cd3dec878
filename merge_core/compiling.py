"""Networks as compiled code while they learn (`torch.compile`), where a recipe asks for it.

Compiled code takes sums in another order than eager code, so its numbers differ in the last digits.
What it draws (dropout) is the same. Eager stay: evaluation, as a second compilation for it would
not be repaid; a last batch of an epoch that is smaller than the others; and networks with hooks,
which those with gates and some of double width have.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from functools import cache

import torch
from torch import Tensor, nn

from merge_core.errors import DeviceError, RecipeError
from merge_core.recipes import Code

_BEAT = 0.25
_OPTIONS = {
    "fallback_random": True,  # dropout draws what it draws in eager code
    "compile_threads": 1,  # no helpers that could outlive a worker that is killed
}


def require(code: Code, device: str) -> None:
    """See to it that networks can be compiled for the device, where a recipe asks for it.

    Raises:
        DeviceError: they cannot.
    """
    reason = missing(device) if code == "compiled" else ""
    if reason:
        raise DeviceError(
            f"The recipe got code='compiled', but networks cannot be compiled for the device "
            f"{device!r} of this machine ({reason}); mend that, or leave it at 'eager'."
        )


def missing(device: str) -> str:
    """Why networks cannot be compiled for a device of this machine; "" where they can."""
    # Torch loads its compiler when it is asked for; most processes never need it.
    from torch._dynamo import config as dynamo
    from torch._dynamo.eval_frame import is_dynamo_supported
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler
    from torch.utils._triton import has_triton

    if device == "mps":
        return "torch compiles for CPUs and for CUDA"
    if dynamo.disable:
        return "TORCH_COMPILE_DISABLE switches it off"
    if not is_dynamo_supported():
        return "torch cannot compile under this version of Python"
    if device == "cuda" and not has_triton():
        return "it needs Triton and a GPU that Triton knows"
    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return "it needs a C++ compiler"
    return ""


def can_be_compiled(network: nn.Module) -> bool:
    """Whether a network has no hooks: those of gates act on calls that compiled code has not."""
    return not any(
        module._forward_pre_hooks or module._forward_hooks for module in network.modules()
    )


def compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """The network as compiled code that shares its parameters and buffers.

    The first call with inputs of another shape compiles, for up to a minute; networks of one class
    and one shape share the code of the first of them.
    """
    _place()
    return torch.compile(network, dynamic=False, options=_OPTIONS)


@cache
def _place() -> tempfile.TemporaryDirectory[str]:
    """Where this process keeps compiled code: a folder that goes when it ends.

    Torch writes files there that it loads again, pickles among them. Nobody else can write to it,
    and none is taken over from another process.
    """
    place = tempfile.TemporaryDirectory(prefix="netweld-compiled-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = place.name
    return place


def meanwhile(compiles: Callable[[], None]) -> Iterator[None]:
    """Compile beside whoever iterates, who gets a beat several times a second until it is done.

    Whoever does not want to wait any longer goes away; the thread ends by itself, with what it has
    begun.

    Raises:
        RecipeError: something cannot be compiled.
    """
    pool = ThreadPoolExecutor(1, "compiling")
    work = pool.submit(compiles)
    pool.shutdown(wait=False)
    while not wait_for([work], _BEAT).done:
        yield
    error = work.exception()
    if error is not None:
        told = str(error).strip().partition("\n")[0]
        raise RecipeError(
            f"The network could not be compiled ({type(error).__name__}: {told}); set code to "
            f"'eager' and start again."
        ) from error
