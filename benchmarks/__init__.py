"""The benchmarks: `python -m benchmarks`, see RESULTS.md."""
