"""How much an installation needs: from what is wished for to disk, memory, processors, machines and hours.

Arithmetic and nothing else: `needs` makes Needs of Wishes and Constants. What was measured, and how well straight lines
go through it, is in constants.json, which `python -m benchmarks capacity` writes anew; what follows from the layout of
PostgreSQL's pages is computed (sizes.py), and the benchmark compares it with real tables. docs/howto/capacity.md tells
operators what comes out.
"""

from .constants import Constant, Constants
from .needs import Needs, needs
from .wishes import BadWish, Wishes

__all__ = ["BadWish", "Constant", "Constants", "Needs", "Wishes", "needs"]
