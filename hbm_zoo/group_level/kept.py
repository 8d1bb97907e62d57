"""What was computed last is kept, for those who ask the same in turn."""

from collections.abc import Callable
from functools import wraps
from numbers import Integral


def last_kept(formula: Callable) -> Callable:
    """The formula, whose last answer is given again as long as it is asked of the same objects and whole numbers.

    Of some groups everything is asked in turn, most of which begins with what is known of them after their data.

    Examples
    --------
    >>> @last_kept
    ... def total(values):
    ...     print("adding")
    ...     return sum(values)
    >>> some = [1, 2]
    >>> total(some), total(some), total([1, 2])
    adding
    adding
    (3, 3, 3)
    """
    last: list = []

    @wraps(formula)
    def answer(*arguments):
        if not (last and len(last[0]) == len(arguments) and all(map(_same, last[0], arguments))):
            last[:] = arguments, formula(*arguments)
        return last[1]

    return answer


def _same(one: object, other: object) -> bool:
    return one is other or (isinstance(one, Integral) and isinstance(other, Integral) and one == other)
