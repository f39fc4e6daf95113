"""Generated suites, and scripts that run them; `python -m benchmarks.NAME --help` for each."""
