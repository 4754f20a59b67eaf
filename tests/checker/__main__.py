"""Listen as browsers do, and judge from the documentation's words what was heard.

    python -m tests.checker http://127.0.0.1:8000 --key KEY
        Notify and listen for half a minute, and print a verdict. The service and its other
        clients may go on as usual; the merchants have names of their own.

    python -m tests.checker http://127.0.0.1:8000 --controlled --merchants m0,m1
        Listen only. What a backend was answered comes as lines of JSON on stdin, and the verdict
        goes as a line of JSON to stdout. tests/faults does this.

Exits with 0 if every promise was kept, with 1 if one was broken, and with 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tests.checker.browser import Server
from tests.checker.run import Plan, run_alone, run_controlled


def main() -> int:
    """Run the checker as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.checker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", metavar="URL", help="where the service, or nginx before it, is")
    parser.add_argument(
        "--key",
        default=os.environ.get("SSE_PUSH_NOTIFY_KEY"),
        help="key for /notify; default: $SSE_PUSH_NOTIFY_KEY",
    )
    parser.add_argument(
        "--notify-url", metavar="URL", help="where to notify, if /notify is not at URL"
    )
    parser.add_argument(
        "--token",
        default=os.environ.get("SSE_PUSH_TOKEN"),
        help="token with which browsers listen, for all the merchants; default: $SSE_PUSH_TOKEN",
    )
    parser.add_argument("--merchants", metavar="A,B", help="default: three with random names")
    parser.add_argument("--each", type=int, default=2, help="browsers per merchant (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="how long (%(default)s)")
    parser.add_argument(
        "--rate", type=float, default=10, help="notifications per second (%(default)s)"
    )
    parser.add_argument(
        "--within", type=float, default=5, help="seconds until a browser is told (%(default)s)"
    )
    parser.add_argument(
        "--drop-every",
        type=float,
        default=2,
        help="seconds after which one browser loses its connection; 0: never (%(default)s)",
    )
    parser.add_argument("--controlled", action="store_true", help="obey stdin, see above")
    options = parser.parse_args()
    if options.controlled and not options.merchants:
        parser.error("--controlled needs --merchants")
    try:
        server = Server.at(options.url, options.token)
        backend = Server.at(options.notify_url or options.url)
    except ValueError as exc:
        parser.error(str(exc))
    plan = Plan(
        server=server,
        backend=backend,
        key=options.key,
        merchants=options.merchants.split(",") if options.merchants else [],
        each=options.each,
        seconds=options.seconds,
        rate_per_s=options.rate,
        within_s=options.within,
        drop_every_s=options.drop_every,
    )
    return asyncio.run(run_controlled(plan) if options.controlled else run_alone(plan))


if __name__ == "__main__":
    sys.exit(main())
