"""Runs one command on a machine that ssh reached; needs nothing but Python.

The first line of the input is JSON: {"argv", "folder", "environment"}; each further line is a signal's name for the
command.  It is asked to stop, once, by SIGTERM: named so, or sent to this process by its machine (`leaving.py`), or at
the end of the input (the launcher or the connection is gone).
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
        stop = Stop(process)
        signal.signal(signal.SIGTERM, lambda number, frame: stop())
        threading.Thread(target=pass_on, args=(process, stop), daemon=True).start()
        code = process.wait()
    return code if code >= 0 else 128 - code


class Stop:
    """Asks the command to stop, once: a second SIGTERM would interrupt torchrun while its processes save."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.asked = False

    def __call__(self) -> None:
        """Ask, unless it was asked before."""
        if not self.asked:
            self.asked = True
            self.process.send_signal(signal.SIGTERM)


def pass_on(process: "subprocess.Popen[bytes]", stop: Stop) -> None:
    """Send the command the signals that the input names."""
    for line in sys.stdin:
        name = line.strip()
        if name == "SIGTERM":
            stop()
        else:
            process.send_signal(signal.Signals[name])
    stop()


if __name__ == "__main__":
    # os._exit: a thread that still reads the input would keep the interpreter from ending.
    result = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(result)
