"""Runs one command on a machine that ssh reached; needs nothing but Python.

The first line of the input is JSON: {"argv", "folder", "environment"}; each further line is a signal's name for the
command.  At the end of the input (the launcher or the connection is gone) the command is asked to stop.
"""

import json
import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    """Run the command and return its exit code, 128 + the number of the signal that ended it."""
    order = json.loads(sys.stdin.readline())
    environment = {**os.environ, **order["environment"]}
    with subprocess.Popen(
        order["argv"], cwd=order["folder"], env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    ) as process:
        threading.Thread(target=pass_on, args=(process,), daemon=True).start()
        code = process.wait()
    return code if code >= 0 else 128 - code


def pass_on(process: "subprocess.Popen[bytes]") -> None:
    """Send the command the signals that the input names."""
    for line in sys.stdin:
        process.send_signal(signal.Signals[line.strip()])
    process.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    # os._exit: a thread that still reads the input would keep the interpreter from ending.
    result = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(result)
