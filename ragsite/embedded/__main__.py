"""`python -m ragsite.embedded DATA_DIR`: the janitor of that directory. Started by `attach`, not by hand."""

import sys
from pathlib import Path

from .holders import janitor

janitor(Path(sys.argv[1]))
