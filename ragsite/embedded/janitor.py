"""`python -I janitor.py DATA_DIR`: the janitor of that data directory. Started by `attach`, not by hand."""

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # This package alone, without the site around it: the janitor needs neither settings nor Celery, and waits
    # in a tenth of the memory. Appended, so that no module of the site hides an installed one.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    importlib.import_module("embedded.holders").janitor(Path(sys.argv[1]))
