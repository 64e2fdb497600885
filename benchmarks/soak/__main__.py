"""The soak from the command line."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.soak.chaos import Plan, soak


def main() -> int:
    """Run it, print what was done and every fault; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    for name, value in vars(Plan()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    plan = Plan(**vars(parser.parse_args()))
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(plan, Path(folder))
    print(f"seed {plan.seed}: {time.monotonic() - started:.0f} s")
    for name in ("kills", "stops", "actions", "runs"):
        print(f"{name}: {dict(getattr(report, name))}")
    print(f"purged: {report.purged}")
    for fault in report.faults:
        print(f"FAULT {fault}")
    print("everything adds up" if not report.faults else f"{len(report.faults)} faults")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
