"""Units to weighted units: token counts in batches, too long units cut finer, content hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from math import log
from typing import NamedTuple

from apps.documents.chunking.units import CHARS_PER_TOKEN, Cut, Unit, finer

Count = Callable[[Sequence[str]], list[int]]

BATCH_UNITS = 256
BATCH_CHARS = 128 * 1024
_DEEPEST = 64  # halvings; far more than any unit needs


class Weighed(NamedTuple):
    """A unit, its weight in tokens (at least 1) and `luck`, an exponentially distributed content hash."""

    unit: Unit
    weight: int
    luck: float


def weigh(text: str, units: Iterable[Unit], *, count: Count, limit: int) -> Iterator[Weighed]:
    """Weigh units in batches; one over `limit` tokens (or 16 characters a token) is cut finer first.

    Only a single character can stay over the limit.
    """
    return _weigh(text, units, count, limit, 0)


def _weigh(text: str, units: Iterable[Unit], count: Count, limit: int, depth: int) -> Iterator[Weighed]:
    batch: list[Unit] = []
    size = 0
    for unit in units:
        length = unit.end - unit.start
        batch.append(unit)
        size += min(length, limit * CHARS_PER_TOKEN + 1)
        if len(batch) >= BATCH_UNITS or size >= BATCH_CHARS:
            yield from _weigh_batch(text, batch, count, limit, depth)
            batch, size = [], 0
    yield from _weigh_batch(text, batch, count, limit, depth)


def _weigh_batch(text: str, batch: list[Unit], count: Count, limit: int, depth: int) -> Iterator[Weighed]:
    fits = [unit for unit in batch if unit.end - unit.start <= limit * CHARS_PER_TOKEN]
    # The white space after a unit is counted with it: to some tokenizers a newline is a token.
    counts = iter(
        count(
            [
                text[unit.start : unit.end + 2] if _spaced(text, unit) else text[unit.start : unit.end]
                for unit in fits
            ]
        )
        if fits
        else ()
    )
    for unit in batch:
        length = unit.end - unit.start
        tokens = next(counts) if length <= limit * CHARS_PER_TOKEN else limit + 1
        weight = max(1, tokens, -(-length // CHARS_PER_TOKEN))
        if weight <= limit or length == 1 or depth > _DEEPEST:
            yield Weighed(unit, min(weight, limit), luck(text[unit.start : unit.end]))
        else:
            yield from _weigh(text, _finer_units(text, unit, depth), count, limit, depth + 1)


def _spaced(text: str, unit: Unit) -> bool:
    return text[unit.end : unit.end + 2] == "\n\n"


def _finer_units(text: str, unit: Unit, depth: int) -> Iterator[Unit]:
    opens = unit.opens
    for start, end, cut in finer(text, unit.start, unit.end, unit.cut, depth):
        # Parts of a long heading may part; only its end must hold on to what follows.
        yield Unit(
            start, end, cut if cut is not Cut.HEADING or end == unit.end else Cut.WORD, unit.path, opens
        )
        opens = False


def luck(content: str) -> float:
    """-ln u of a uniform hash u of the content: stable across processes and machines, mean 1."""
    digest = blake2b(content.encode("utf-8", "surrogatepass"), digest_size=7).digest()
    return -log((int.from_bytes(digest, "big") + 1) / 2**56)
