"""How the loops over bytes and words are compiled."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """The function as machine code, made when it is first called and kept on the disk beside its
    source (else in the user's cache folder). It runs without Python's lock: threads work side by
    side. Kept code is made anew when its own file changes, not when one that it calls from does.
    """
    return cast(Function, numba.njit(nogil=True, cache=True)(function))
