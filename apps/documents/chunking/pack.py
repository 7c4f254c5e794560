"""Which unit ends become chunk ends: a cheapest path, so that an edit stays local.

Packing greedily from the top shifts every later boundary after an edit. Here every possible boundary has a
price that depends on the text just before it only (what ends there, and a hash of that unit), every chunk
has a price that depends on its length only, and the chosen boundaries are the cheapest path through the
section, found by dynamic programming. Two cheapest paths that start differently meet at the next boundary
that is cheap enough for both to reach for; from there on they are the same path. Since the length of the
steps is free between a quarter of the limit and the limit, two or three steps reach any place, and the
exponential tail of the hash makes places worth reaching for frequent.

The idea of content-defined boundaries is from Muthitacharoen et al., "A Low-bandwidth Network File System",
SOSP 2001; choosing them by global optimisation instead of a threshold keeps the maximum length without the
forced, content-blind cuts that a threshold needs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from functools import lru_cache

from apps.documents.chunking.measure import Weighed
from apps.documents.chunking.units import WIDE_GAP, Cut

# Price of ending a chunk there, in units of the hash's mean. Tuned on edits of real documents.
CUT_PRICE = {
    Cut.PARAGRAPH: 0.0,
    Cut.ITEM: 0.25,
    Cut.SENTENCE: 0.75,
    Cut.STANZA: 3.0,
    Cut.LINE: 6.0,
    Cut.CLAUSE: 4.0,
    Cut.WORD: 5.0,
    Cut.HARD: 6.0,
    Cut.HEADING: 40.0,
}
LUCK = 1.0  # how much the hash counts
CHUNK_PRICE = 2.0  # for a chunk of any length: fewer, fuller chunks
SHORT = 0.5  # below this share of the limit a chunk costs extra, quadratically
SHORT_PRICE = 12.0

_CHECK = 16  # limits' worth of units after which a settled beginning is looked for
_PATIENCE = 128  # limits' worth after which one is forced, to bound memory


def pack(units: Iterable[Weighed], limit: int) -> Iterator[list[Weighed]]:
    """Groups of consecutive units, each at most `limit` tokens heavy, none across a forced opening.

    Holds at most about 128 * `limit` tokens' worth of units, usually a tenth of that.
    """
    packer = _Packer(limit)
    end = -1
    for weighed in units:
        unit = weighed.unit
        if unit.opens or unit.start - end > WIDE_GAP:
            yield from packer.finish()
        end = unit.end
        packer.add(weighed)
        if packer.heavy():
            yield from packer.settle()
    yield from packer.finish()


@lru_cache(maxsize=16)
def _prices(limit: int) -> list[float]:
    """Of a chunk, by its weight."""
    return [CHUNK_PRICE + SHORT_PRICE * max(0.0, SHORT - weight / limit) ** 2 for weight in range(limit + 1)]


class _Packer:
    """The units of one section not yet settled, and the cheapest path to each of their ends."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._prices = _prices(limit)
        self._units: list[Weighed] = []
        self._reset()

    def _reset(self) -> None:
        self._units = []
        self._total = [0]  # weight before unit i
        self._cost = [0.0]  # of the cheapest path to the end of unit i - 1
        self._back = [0]  # where the last chunk of that path starts
        self._low = 0  # first start from which a chunk can still reach the newest end
        self._check_at = _CHECK * self._limit

    def add(self, weighed: Weighed) -> None:
        total, cost, prices = self._total, self._cost, self._prices
        end = total[-1] + weighed.weight
        low = self._low
        while end - total[low] > self._limit:
            low += 1
        self._low = low
        best, start = float("inf"), low
        for index in range(low, len(total)):
            price = cost[index] + prices[end - total[index]]
            if price < best:
                best, start = price, index
        self._units.append(weighed)
        total.append(end)
        cost.append(best + CUT_PRICE[weighed.unit.cut] - LUCK * weighed.luck)
        self._back.append(start)

    def heavy(self) -> bool:
        return self._total[-1] - self._total[0] > self._check_at

    def finish(self) -> Iterator[list[Weighed]]:
        """The section ends here: everything is settled."""
        if self._units:
            groups = self._path(len(self._units))
            self._reset()
            yield from groups

    def settle(self) -> Iterator[list[Weighed]]:
        """Release the part of the path that every possible continuation shares."""
        newest = len(self._units)
        open_ends = range(self._low, newest + 1)
        shared = self._common_ancestor(open_ends)
        if shared == 0:
            self._check_at += _CHECK * self._limit
            if self._check_at <= _PATIENCE * self._limit:
                return
            shared = min(open_ends[1:] or open_ends, key=self._cost.__getitem__)
            groups = self._path(shared)
            rest = self._units[shared:]
            self._reset()
            for weighed in rest:
                self.add(weighed)
        else:
            groups = self._path(shared)
            del self._units[:shared], self._total[:shared], self._cost[:shared]
            self._back = [max(0, start - shared) for start in self._back[shared:]]
            self._low -= shared
            self._check_at = _CHECK * self._limit + self._total[-1] - self._total[0]
        yield from groups

    def _common_ancestor(self, ends: range) -> int:
        """The newest unit end that lies on the cheapest path to every one of `ends`."""
        heap = [-end for end in ends]
        heapq.heapify(heap)
        seen = set(heap)
        while len(heap) > 1:
            start = -self._back[-heapq.heappop(heap)]
            if start not in seen:
                seen.add(start)
                heapq.heappush(heap, start)
        return -heap[0]

    def _path(self, end: int) -> list[list[Weighed]]:
        groups: list[list[Weighed]] = []
        while end > 0:
            start = self._back[end]
            groups.append(self._units[start:end])
            end = start
        groups.reverse()
        return groups
