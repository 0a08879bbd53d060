"""A process that has everything imported and forks one command at a time: a command costs its work, no start-up.

Reads a JSON object a line ({"words": ..., "env": ..., "output": file}), forks, answers with the child's {"pid": ...},
and when it has ended with its {"code": ...} (negative: the signal).
"""

import ctypes
import json
import os
import sys
import traceback
from typing import Any, NoReturn

# Nothing is computed before a fork: threads would be lost in it.
import noiselaw.cli.data
import noiselaw.cli.evaluate
import noiselaw.cli.export
import noiselaw.cli.report
import noiselaw.cli.sample
import noiselaw.cli.study
import noiselaw.cli.train  # noqa: F401
from noiselaw.cli.main import main


def serve() -> None:
    """Until the end of standard input."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _work(request)
        _answer(pid=child)
        _, status = os.waitpid(child, 0)
        _answer(code=os.waitstatus_to_exitcode(status))


def _answer(**values: int) -> None:
    print(json.dumps(values), flush=True)


def _work(request: dict[str, Any]) -> NoReturn:
    """The command, in the child."""
    os.setsid()
    for target, place in ((0, os.devnull), (1, request["output"]), (2, request["output"])):
        os.dup2(os.open(place, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), target)
    os.environ.update(request["env"])
    sys.argv = ["noiselaw", *request["words"]]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:  # noqa: BLE001 (whatever the interpreter would have shown)
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).tell_counts()
    os._exit(code)


if __name__ == "__main__":
    serve()
