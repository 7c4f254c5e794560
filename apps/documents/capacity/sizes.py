"""Bytes of disk: by the layout of PostgreSQL's pages where that tells, else by what was measured."""

from __future__ import annotations

from .constants import Constants
from .wishes import Wishes

PAGE = 8192 - 24  # bytes of a page that rows and their pointers have
POINTER = 4
TUPLE = 24  # a row's header
KEYS = 4 * 16 + 1  # of a vector's row: four ids, and whether it is live
TOASTED = 2_032  # bytes; what makes a row longer is stored beside it, in pieces
PIECE, PIECE_HEADER, PIECE_KEY = 1_996, TUPLE + 12, 27
NEIGHBOUR = 6  # bytes of a pointer in a graph
ELEMENT = 72  # of a graph's entry, without its vector

DEAD = 0.1  # of a vector index: then it is built anew (index_care.py)


def disk(wishes: Wishes, constants: Constants) -> dict[str, float]:
    """Bytes, by what they hold."""
    text = wishes.chunk_tokens * constants.text
    whole = text * wishes.chunks_per_document  # of a document
    original = whole if wishes.original_bytes is None else wishes.original_bytes
    versions = wishes.documents * wishes.versions
    rows = wishes.chunks * (1 + (wishes.versions - 1) * wishes.replaced)  # of chunks, the retired ones too
    jobs = wishes.job_days * wishes.documents_per_day
    # An index of many texts takes less of each; beyond what was measured it is not taken to become thinner still.
    thinner = (min(wishes.chunks, constants.measured_chunks) / constants.measured_chunks) ** constants.word_index_power
    in_version = constants.version_chunk * wishes.chunks_per_document
    return {
        "documents": wishes.documents * constants.document,
        "versions": versions * (constants.version + in_version + constants.stored_text * whole),
        "originals": versions * (constants.original + constants.stored_original * original),
        "chunks": rows * (constants.chunk + constants.chunk_text * text),
        "keys of chunks": rows * constants.chunk_keys,
        "word index": wishes.chunks * text * constants.word_index * thinner,
        "vectors": rows * vector_row(wishes),
        "keys of vectors": rows * constants.vector_keys,
        "vector index": wishes.chunks * index_entry(wishes) * (1 + DEAD if wishes.replaced_per_day else 1),
        "job ledger": jobs * constants.job,
    }


def entries_per_page(entry: float) -> int:
    """How many rows or index entries of so many bytes a page holds."""
    return max(1, int(PAGE // (_aligned(entry) + POINTER)))


def _aligned(size: float) -> int:
    """Rows, and what indexes hold, begin at multiples of 8."""
    return int(-(-size // 8) * 8)


def vector_row(wishes: Wishes) -> float:
    """Bytes of disk of a vector's row; what is too long for its page is beside it."""
    row = TUPLE + KEYS + 3 + wishes.vector_bytes
    if row <= TOASTED:
        return 8192 / entries_per_page(row)
    whole, rest = divmod(wishes.vector_bytes - 4, PIECE)
    last = _aligned(PIECE_HEADER + rest) + POINTER if rest else 0
    together = whole * (_aligned(PIECE_HEADER + PIECE) + POINTER) + last
    pieces = 8192 / (PAGE // together) if together <= PAGE else whole * 2048 + (8192 / (PAGE // last) if rest else 0)
    return 8192 / entries_per_page(TUPLE + KEYS + 18) + pieces + PIECE_KEY * (whole + bool(rest))


def index_entry(wishes: Wishes) -> float:
    """Bytes of disk of a vector's entry in the vector index."""
    held = wishes.indexed_bytes
    if wishes.index == "ivfflat":
        return 8192 / entries_per_page(8 + held)
    neighbours = _aligned(4 + 2 * wishes.m * NEIGHBOUR)
    element = _aligned(ELEMENT + held)
    if element + neighbours + POINTER > PAGE:  # the neighbours go to another page
        return 8192 / entries_per_page(element) + 8192 / entries_per_page(neighbours)
    return 8192 / entries_per_page(element + neighbours + POINTER)
