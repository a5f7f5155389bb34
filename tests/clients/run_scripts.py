"""Run scripts in one interpreter, one after another: to import what they use takes seconds.

A line of input is a script's path. A line of output is a list: what it printed, and how it failed.
"""

import contextlib
import io
import json
import runpy
import sys
import traceback

for line in sys.stdin:
    printed, failure = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(line.removesuffix("\n"), run_name="__main__")
    except BaseException:
        failure = traceback.format_exc()
    sys.stdout.write(json.dumps([printed.getvalue(), failure]) + "\n")
    sys.stdout.flush()
