"""Cases worked on by several threads at once: files are unpacked and voxels computed outside of Python's lock.

Threads rather than processes: none has to import torch first (1.6 s), none can be killed unseen, and what they
return is not copied.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from vol3d.datasets.cases import Case
from vol3d.errors import ResourceError, StoppedError, Vol3dError, is_out_of_memory
from vol3d.files.machine import cores

Result = TypeVar("Result")
MOST_THREADS = 16
"""Each holds a few slabs of some 2^24 voxels."""
_POLL_SECONDS = 0.2


def of_each(
    cases: Sequence[Case],
    work: Callable[[Case], Result],
    *,
    doing: str,
    asked: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """What work makes of each case, in order; asked is called while this waits, and what it raises ends all.

    The first case to fail ends the work on the others, too; its error names it.

    Raises:
        Vol3dError: that of the case.
    """
    count, own = min(cores(), len(cases), MOST_THREADS), torch.get_num_threads()
    if count < 2:
        for case in cases:
            asked()
            yield _named(case, work, doing)
        return
    with ThreadPoolExecutor(count, "cases", torch.set_num_threads, (max(1, own // count),)) as pool:
        waiting = [pool.submit(_named, case, work, doing) for case in cases]
        try:
            for future in waiting:
                yield _result(future, asked)
        finally:
            for future in waiting:
                future.cancel()
            torch.set_num_threads(own)  # what one thread says holds for those begun later


def _result(future: Future[Result], asked: Callable[[], None]) -> Result:
    while True:
        asked()
        try:
            return future.result(timeout=_POLL_SECONDS)
        except TimeoutError:
            if future.done():
                return future.result()


def _named(case: Case, work: Callable[[Case], Result], doing: str) -> Result:
    """The result, or an error that says which case it is about."""
    try:
        return work(case)
    except StoppedError:
        raise
    except Vol3dError as error:
        if case.name in str(error):
            raise
        raise type(error)(f"case {case.name}: {error}") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise ResourceError(f"case {case.name}: out of memory while it was {doing} ({error})") from error
        error.add_note(f"vol3d: while case {case.name} was {doing}")
        raise
