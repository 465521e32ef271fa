"""The command line: ``python3 -m lab``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import boot, hosts, kinds, lifecycle, tools
from .errors import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except LabError as error:
        print(f"lab: error: {error}", file=sys.stderr)
        return 1
    except lifecycle.Interrupted as signal:
        print(f"lab: stopped by {signal}", file=sys.stderr)
        return 128 + signal.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our answer has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m lab", description="Disposable virtual Docker hosts. See lab/README.md."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    build = commands.add_parser("build", help="build the image of a kind, unless the cache has it")
    build.add_argument("kind", nargs="?", default="trixie", metavar="KIND")
    build.add_argument("--force", action="store_true", help="build it even so")
    build.set_defaults(run=_build)

    commands.add_parser("kinds", help="list the kinds of host").set_defaults(run=_kinds)

    up = commands.add_parser("up", help="boot new hosts, in parallel, and wait for them")
    up.add_argument(
        "hosts",
        nargs="*",
        metavar="NAME",
        help="host name; NAME,kind=K,memory=MIB,cpus=N overrides the options for one host",
    )
    up.add_argument(
        "--platforms",
        metavar="FILE",
        help="boot the platforms of this molecule.yml; their kind, memory and cpus count",
    )
    up.add_argument("--kind", default="trixie", help="kind of host (default: %(default)s)")
    up.add_argument("--memory", type=int, default=1536, metavar="MIB", help="default: %(default)s")
    up.add_argument("--cpus", type=int, default=2, metavar="N", help="default: %(default)s")
    up.add_argument("--cold", action="store_true", help="boot, rather than wake a booted host")
    _add_timeout(up)
    _add_json(up)
    up.set_defaults(run=_up)

    listing = commands.add_parser("list", help="show the hosts")
    listing.add_argument(
        "--all", action="store_true", help="those of every state directory, as Molecule's"
    )
    _add_json(listing)
    listing.set_defaults(run=_list)

    down = commands.add_parser("down", help="stop hosts and delete their disks")
    down.add_argument("hosts", nargs="*", metavar="ID|NAME")
    down.add_argument(
        "--all-of-mine", action="store_true", help="every host of this state directory"
    )
    down.add_argument(
        "--ignore-missing", action="store_true", help="do not mind hosts that are gone already"
    )
    down.set_defaults(run=_down)

    ssh = commands.add_parser("ssh", help="log in to a host, or run a command there")
    ssh.add_argument("host", metavar="ID|NAME")
    ssh.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND")
    ssh.set_defaults(run=_ssh)

    for name, run, text in (
        ("reboot", _reboot, "reboot a host properly and wait until it is ready again"),
        ("start", _start, "boot a host that is off, from its own disk"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("host", metavar="ID|NAME")
        _add_timeout(command)
        command.set_defaults(run=run)
    cut = commands.add_parser("power-cut", help="cut a host's power; its disk stays, see start")
    cut.add_argument("host", metavar="ID|NAME")
    cut.set_defaults(run=_power_cut)
    console = commands.add_parser("console", help="print what a host wrote to its console")
    console.add_argument("host", metavar="ID|NAME")
    console.set_defaults(run=_console)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="answer as JSON on stdout")


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=os.environ.get("BULKHEAD_LAB_TIMEOUT", str(boot.DEADLINE)),
        metavar="SECONDS",
        help="time that each host has to become ready (default: %(default)s)",
    )


def parse_host(text: str, default: hosts.Spec) -> hosts.Spec:
    """Read ``NAME[,kind=K][,memory=MIB][,cpus=N]``. Raises LabError that shows the form."""
    name, *settings = text.split(",")
    values: dict[str, str] = {
        key: value for key, _, value in (setting.partition("=") for setting in settings)
    }
    unknown = sorted(set(values) - {"kind", "memory", "cpus"})
    try:
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}")
        return hosts.Spec(
            name=name,
            kind=values.get("kind") or default.kind,
            memory=int(values.get("memory") or default.memory),
            cpus=int(values.get("cpus") or default.cpus),
        )
    except ValueError as error:
        raise LabError(f"{text!r}: {error}; expected NAME,kind=K,memory=MIB,cpus=N") from error


def read_platforms(path: Path, default: hosts.Spec) -> list[hosts.Spec]:
    """Return the hosts that a molecule.yml lists. Raises LabError that names the platform."""
    import yaml  # see kinds.py

    try:
        platforms = yaml.safe_load(path.read_text(encoding="utf-8"))["platforms"]
        settings = [{"kind": default.kind, **platform} for platform in platforms]
        return [
            hosts.Spec(
                name=str(setting["name"]),
                kind=str(setting["kind"]),
                memory=int(setting.get("memory") or default.memory),
                cpus=int(setting.get("cpus") or default.cpus),
            )
            for setting in settings
        ]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise LabError(
            f"{path}: expected 'platforms', a list of mappings with name and, if they are to "
            f"differ, kind, memory (MiB) and cpus: {error!r}"
        ) from error


def _build(options: argparse.Namespace) -> None:
    default = hosts.Spec("")
    image = lifecycle.build(
        options.kind, force=options.force, memory=default.memory, cpus=default.cpus
    )
    print(image.directory)


def _kinds(_options: argparse.Namespace) -> None:
    for kind in kinds.load().values():
        print(f"{kind.name:<12} {kind.description}")


def _up(options: argparse.Namespace) -> None:
    default = hosts.Spec("", options.kind, options.memory, options.cpus)
    specs = [parse_host(text, default) for text in options.hosts]
    if options.platforms:
        specs += read_platforms(Path(options.platforms), default)
    if not specs:
        raise LabError("name the hosts to boot")
    started = lifecycle.up(specs, cold=options.cold, deadline=options.timeout)
    _show(started, options.json)


def _list(options: argparse.Namespace) -> None:
    _show(hosts.load_all(everywhere=options.all), options.json)


def _show(found: Sequence[hosts.Host], as_json: bool) -> None:
    rows = [host.summary() for host in found]
    if as_json:
        print(json.dumps({"hosts": rows}, indent=2))
        return
    form = "{:<24} {:<16} {:<10} {:>6} {:<9} {:>8}"
    print(form.format("ID", "NAME", "KIND", "PORT", "STATE", "UPTIME"))
    for row in rows:
        uptime = "-" if row["uptime"] is None else f"{row['uptime']} s"
        values = [row[key] for key in ("id", "name", "kind", "port", "state")]
        print(form.format(*values, uptime))


def _down(options: argparse.Namespace) -> None:
    if options.all_of_mine == bool(options.hosts):
        raise LabError("name the hosts to stop, or give --all-of-mine")
    chosen = hosts.load_all() if options.all_of_mine else []
    for wanted in options.hosts:
        try:
            chosen.append(hosts.find(wanted))
        except LabError:
            if not options.ignore_missing:
                raise
    for host in chosen:
        hosts.remove(host)
        tools.say(f"{host.name}: gone ({host.id})")


def _ssh(options: argparse.Namespace) -> None:
    host = hosts.find(options.host)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    ssh = hosts.ssh_command(host)
    if not command and sys.stdin.isatty():
        ssh.insert(1, "-t")
    os.execv(ssh[0], [*ssh, *command])


def _power_cut(options: argparse.Namespace) -> None:
    lifecycle.power_cut(hosts.find(options.host))


def _start(options: argparse.Namespace) -> None:
    lifecycle.start(hosts.find(options.host), options.timeout)


def _reboot(options: argparse.Namespace) -> None:
    lifecycle.reboot(hosts.find(options.host), options.timeout)


def _console(options: argparse.Namespace) -> None:
    host = hosts.find(options.host)
    print(tools.tail(host.console, 1_000_000))


if __name__ == "__main__":
    sys.exit(main())
