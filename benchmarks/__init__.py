"""Benchmarks: what the sweep costs, compared in one run with what it is compared to."""
