"""Batches made ahead of the network, in order, by threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def ahead(make: Callable[[int], Item], first: int, stop: int, *, threads: int, depth: int) -> Iterator[Item]:
    """Yield make(first), ..., make(stop - 1) in order, at most depth of them made in advance.

    make is a pure function of the number, so the items do not depend on the threads. Its exception is
    raised where its item would have come. With threads=0 items are made when asked for. Each thread computes by
    itself: a pool of torch's own would spin on the cores that the network needs.
    """
    if threads == 0:
        yield from map(make, range(first, stop))
        return
    with ThreadPoolExecutor(threads, "batches", torch.set_num_threads, (1,)) as pool:
        waiting: list[Future[Item]] = [pool.submit(make, n) for n in range(first, min(stop, first + depth))]
        try:
            for number in range(first, stop):
                item = waiting.pop(0).result()
                if number + depth < stop:
                    waiting.append(pool.submit(make, number + depth))
                yield item
        finally:
            for future in waiting:
                future.cancel()
