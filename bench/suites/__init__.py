"""The pytest-benchmark suites; `python -m bench` runs them, and `bench.plugin` tells them what to do."""
