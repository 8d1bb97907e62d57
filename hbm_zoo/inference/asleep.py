"""Keep a module that somebody imports lazily from being loaded by a look at it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def asleep(name: str) -> Iterator[None]:
    """Hide a module that is imported lazily and was not used so far.

    SciPy's special functions ask of each array whether it is one of JAX as soon as there is such a module, and
    ArviZ's lazy import puts one there, so that the asking would load JAX: two seconds, and threads.

    Examples
    --------
    >>> with asleep("jax"):
    ...     "a function of SciPy"
    'a function of SciPy'
    """
    module = sys.modules.get(name)
    if type(module).__name__ != "_LazyModule":
        yield
        return
    del sys.modules[name]
    try:
        yield
    finally:
        sys.modules.setdefault(name, module)
