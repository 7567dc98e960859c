"""A net through torch.compile, with what was compiled kept on disk for other trials to use.

Inductor keeps on disk the code that it generates and builds; a net of the same kind and shapes is
then compiled in the time that tracing it takes. Where, torch lets one environment variable alone
say, which its own `temporary_cache_dir` sets for as long as something is compiled.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

FOLDER = "compiled"
"""Within the cache folder of a configuration (`data.cache`)."""


def compile_net(net: nn.Module, *, cache: Path) -> Callable[[Tensor], Tensor]:
    """Return a net's forward pass, compiled anew for each shape of clips that it is given.

    What is compiled goes to, or comes from, `cache`/compiled. The nets compiled before it in this
    process are forgotten: torch allows few to a process, and gives up silently on the next.

    Raises ValueError where the machine lacks what torch.compile needs: at once for want of a C++
    compiler on a CPU, else when clips of a new shape come.
    """
    folder = Path(cache).expanduser() / FOLDER
    if next(net.parameters()).device.type == "cpu":
        _require_compiler()
    torch.compiler.reset()
    # Deterministic: no choice by timing, which could change the order of a sum from run to run.
    compiled = torch.compile(net, dynamic=False, options={"deterministic": True})
    known: set[object] = set()

    @functools.wraps(net.forward)
    def forward(clips: Tensor) -> Tensor:
        variant = _variant(net, clips)
        if variant in known:
            return compiled(clips)  # type: ignore[no-any-return]
        with _compiling(folder):
            restored: Tensor = compiled(clips)
        known.add(variant)
        return restored

    return forward


def _variant(net: nn.Module, clips: Tensor) -> object:
    """Return what torch compiles separately for."""
    kind = clips.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    return clips.shape, clips.dtype, torch.is_grad_enabled(), net.training, autocast


@contextmanager
def _compiling(folder: Path) -> Iterator[None]:
    """Compile into a folder, the way back too, and say in one line why that cannot be done."""
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._functorch import config as functorch_config
    from torch._inductor.runtime.cache_dir_utils import temporary_cache_dir

    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(temporary_cache_dir(str(folder)))
        # Else gradients are compiled when they are first asked for, outside of this.
        stack.enter_context(functorch_config.patch(force_non_lazy_backward_lowering=True))
        stack.enter_context(warnings.catch_warnings())
        # Nets that look at spectra have complex numbers, a few operations of a whole net.
        warnings.filterwarnings("ignore", ".*code generation for complex operators", UserWarning)
        try:
            yield
        except BackendCompilerFailed as error:
            if isinstance(error.inner_exception, torch.OutOfMemoryError):
                raise error.inner_exception from None
            raise _refusal(error.inner_exception) from error


def _require_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"compile=True; must be false on this machine: {reason}")
