"""What surrounds a test and whatever it starts, the same wherever the tests are run from.

A job in the background (`nohup make test &`, as many CI runners do) ignores SIGINT, and so would every process that it starts.
Variables that libpq, the program or its libraries read would change what is tested. Databases are made and dropped by the
thousand: they are kept in memory where there is enough of it, unless TMPDIR says where.
"""

import os
import shutil
import signal
import tempfile
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
for _name in list(os.environ):
    if _name.startswith(("PG", "SWEEPER_")) or _name in (
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "GITHUB_ACTIONS",
        "TZ",
    ):
        del os.environ[_name]

_MEMORY = Path("/dev/shm")  # noqa: S108 -- pytest and the embedded server make directories of their own in it
_ENOUGH = 2 * 2**30
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ENOUGH:
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)
