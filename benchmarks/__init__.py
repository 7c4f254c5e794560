"""Measurements: `make bench`, or `python -m benchmarks NAME ...`. Results are kept, dated, in RESULTS.md."""
