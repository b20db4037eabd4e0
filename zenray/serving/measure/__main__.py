"""`python -m zenray.serving.measure overhead|transports`: the numbers of docs/serving.md."""

from __future__ import annotations

import argparse
import json
import sys

from zenray.config_load import load_config


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m zenray.serving.measure", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    overhead = commands.add_parser("overhead", help="The engine alone against the engine behind gRPC and Ray.")
    overhead.add_argument("--profile", default="local")
    overhead.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    overhead.add_argument("--prompts", type=int, default=16)
    overhead.add_argument("--prompt-tokens", type=int, default=64)
    overhead.add_argument("--max-tokens", type=int, default=64)
    transports = commands.add_parser("transports", help="Every way from a client to an engine that was considered.")
    transports.add_argument("--only", default="", metavar="TEXT", help="Those whose name contains this.")
    one_way = commands.add_parser("one-way", help="One of them, in this process.")
    one_way.add_argument("edge", choices=["own", "proxy"])
    one_way.add_argument("inner", choices=["none", "tcp", "unix", "handle"])
    given = parser.parse_args()
    if given.command == "overhead":
        from zenray.serving.measure.overhead import measure_overhead

        config = load_config(given.profile, None, given.overrides)
        found = measure_overhead(config, given.prompts, given.prompt_tokens, given.max_tokens, _say)
        print(json.dumps(found, indent=1))
    elif given.command == "transports":
        from zenray.serving.measure.transports import WAYS, measure_transports

        for row in measure_transports(tuple(way for way in WAYS if given.only in way.name), _say):
            print(json.dumps(row))
    else:
        from zenray.serving.measure.transports import measure_one_way

        print(json.dumps(measure_one_way(given.edge, given.inner)))


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
