"""Loops over pixels as machine code, by numba.

A kernel stands beside its formula, in a function of its own that takes contiguous arrays::

    @compiled(void(array(uint8, 2), array(float32, 2, written=True)))
    def _doubled(rows: Pixels, result: Floats) -> None: ...

Its types are declared, so that all there is to compile is compiled before a worker is ready
(:func:`load_kernels`), and a call with others raises TypeError instead of compiling while a job waits. Python's lock is
released in it, and it uses one thread: workers share the cores by being many. Floating-point operations are done
as they are written, so results are the same on every processor, to rounding.

What was compiled is kept in the state folder (:mod:`workers.images.compiled_files`) and loaded in a tenth of the time.
It is found by the source file that the kernel stands in: constants and functions that it uses stand in the same file,
or in one that is named there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from workers.images.compiled_files import KernelFiles, cache_folder, locked

__all__ = ["KERNELS", "Kernel", "Number", "array", "compiled", "load_kernels", "native", "part_of_kernel"]

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")
_F = TypeVar("_F", bound=Callable[..., Any])

# A number within a kernel, in the precision that was declared: of a type of numpy's, and for Python none in particular.
Number: TypeAlias = Any

# Division by zero gives infinity, and is not looked for; kernels are not called from C.
_OPTIONS: Final = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

numba.config.DISABLE_JIT = 0  # NUMBA_DISABLE_JIT, for debugging: a kernel as Python would take minutes for an image

KERNELS: Final[list[Kernel[Any, Any]]] = []  # of all modules that are imported
_loading = threading.Lock()


def array(of: types.Type, dimensions: int, *, written: bool = False) -> types.Array:
    """The type of a contiguous array; one that is only read may be read-only."""
    return types.Array(of, dimensions, "C", readonly=not written)


def native(samples: NDArray[Any]) -> NDArray[Any]:
    """The same as kernels take them: contiguous, and 16 bits in the order of this processor's bytes."""
    return np.require(samples, samples.dtype.newbyteorder("="), ["C", "A"])


def compiled(*signatures: Any) -> Callable[[Callable[_P, _R]], Kernel[_P, _R]]:
    """Make a function a kernel, for arguments of these types."""

    def decorate(function: Callable[_P, _R]) -> Kernel[_P, _R]:
        kernel = Kernel(function, signatures)
        KERNELS.append(kernel)
        return kernel

    return decorate


def part_of_kernel(function: _F) -> _F:
    """For a function that kernels of the same file call; it becomes a part of their machine code."""
    part: _F = numba.njit(**_OPTIONS, no_cpython_wrapper=True)(function)
    return part


def load_kernels() -> None:
    """Load or compile the kernels of all modules that are imported: seconds the first time on a machine."""
    for kernel in KERNELS:
        kernel.load()


class Kernel(Generic[_P, _R]):
    """A function over arrays that runs as machine code; made by :func:`compiled`."""

    def __init__(self, function: Callable[_P, _R], signatures: tuple[Any, ...]) -> None:
        self.__doc__ = function.__doc__
        self._function = function
        self.name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"  # as numba names its files
        self._signatures = signatures
        self._machine_code: Any = None

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if self._machine_code is None:
            self.load()
        result: _R = self._machine_code(*args, **kwargs)
        return result

    def load(self) -> None:
        """Make it ready to be called; a second time does nothing."""
        with _loading:
            if self._machine_code is None:
                self._machine_code = self._cached() or self._with_all_types(self._dispatcher())

    def _cached(self) -> Any:
        """From the folder, or compiled and written there; None where that fails."""
        folder = cache_folder()
        if folder is None:
            return None
        numba.config.CACHE_DIR = str(folder)
        try:
            with locked(folder):
                return self._from_files()
        except Exception as error:  # files are pickled code: what is wrong with them may raise anything
            logger.warning("What is compiled cannot be kept in %s: %r", folder, error)
            return None

    def _from_files(self) -> Any:
        dispatcher = self._dispatcher()
        dispatcher.enable_caching()
        folder = Path(dispatcher.stats.cache_path)
        files = KernelFiles(folder, self.name)
        if not files.are_whole():
            logger.warning("Compiled code in %s is damaged, and compiled anew", folder)
            files.remove()
        self._with_all_types(dispatcher)
        if dispatcher.stats.cache_misses:
            files.seal()
        return dispatcher

    def _dispatcher(self) -> Any:
        return numba.njit(**_OPTIONS)(self._function)

    def _with_all_types(self, dispatcher: Any) -> Any:
        for signature in self._signatures:
            dispatcher.compile(signature)
        dispatcher.disable_compile()
        return dispatcher
