"""A soak: sweepers and their server are killed again and again while an application writes; then everything must add up.

    python -m benchmarks.soak [--seed 1] [--conversations 2500] [--kills 30] [--stops 10]

It prints what was done to the store and every fault that was found, and exits 1 if there is one.
"""
