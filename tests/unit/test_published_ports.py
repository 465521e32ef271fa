"""Published ports stay reachable while the daemon restarts: the rules copied, and taken away again.

The rules are those of Docker 20.10 (bookworm), 26.1 (trixie) and 28.5 (forky), recorded on lab hosts.
"""

from __future__ import annotations

import os
import pathlib
import typing

import pytest

from ansible_collections.bulkhead.hardening.plugins.module_utils import published_ports
from ansible_collections.bulkhead.hardening.plugins.module_utils.host import Completed, Host
from ansible_collections.bulkhead.hardening.plugins.module_utils.transaction import apply

from .fakes import act_host, json_set, plan

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures" / "iptables"
CHAIN = published_ports.CHAIN


class Firewall(Host):
    """iptables, as far as it takes to add and remove chains and rules by position or as they are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[str]] = {}
        self.chains: dict[str, list[str]] = {}
        table = ""
        for line in text.split("\n"):
            if line.startswith("*"):
                table = line[1:]
                self.tables[table], self.chains[table] = [], []
            elif line.startswith(":"):
                self.chains[table].append(line.split()[0][1:])
            elif line.startswith("-A "):
                self.tables[table].append(line[3:])

    def run(self, argv: list[str], timeout: float = 60.0, stdin: bytes | None = None) -> Completed:
        if argv[0].startswith("ip6tables"):
            return Completed(127, "", "not found")
        if argv == ["iptables-save"]:
            return Completed(0, self.text(), "")
        assert argv == ["iptables-restore", "--noflush", "--wait=10"]
        table = ""
        for line in (stdin or b"").decode().split("\n"):
            verb, _, rest = line.partition(" ")
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                self.chains[table].append(line.split()[0][1:])
            elif verb == "-A":
                self.tables[table].append(rest)
            elif verb == "-I":
                chain, number, rule = rest.split(" ", 2)
                rules = [r for r in self.tables[table] if r.startswith(chain + " ")]
                rules.insert(int(number) - 1, "%s %s" % (chain, rule))
                others = [r for r in self.tables[table] if not r.startswith(chain + " ")]
                self.tables[table] = others + rules
            elif verb == "-D":
                self.tables[table].remove(rest)
            elif verb == "-F":
                self.tables[table] = [r for r in self.tables[table] if not r.startswith(rest + " ")]
            elif verb == "-X":
                assert not any(r.endswith("-j " + rest) for r in self.tables[table])
                self.chains[table].remove(rest)
            else:
                assert line in ("", "COMMIT")
        return Completed(0, "", "")

    def text(self) -> str:
        lines = []
        for table, rules in self.tables.items():
            lines += ["*" + table, *(":%s - [0:0]" % name for name in self.chains[table])]
            lines += [*("-A " + rule for rule in rules), "COMMIT"]
        return "\n".join(lines) + "\n"

    def of(self, table: str, chain: str) -> list[str]:
        return [r for r in self.tables[table] if r.split(" ")[0] == chain]


@pytest.mark.parametrize("engine", ["bookworm", "trixie", "forky"])
def test_what_docker_publishes_is_kept_and_released(engine: str) -> None:
    host = Firewall((FIXTURES / (engine + ".txt")).read_text())
    before = {table: sorted(rules) for table, rules in host.tables.items()}
    assert published_ports.keep(host) is None
    published = "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80"
    assert "%s %s" % (CHAIN, published) in host.of("nat", CHAIN)
    assert host.of("nat", "PREROUTING")[-1].endswith("--dst-type LOCAL -j " + CHAIN)
    assert host.of("nat", "OUTPUT")[-1].endswith("--dst-type LOCAL -j " + CHAIN)
    rules = host.of("filter", CHAIN)
    accept = [number for number, rule in enumerate(rules) if "-d 172.17.0.2/32" in rule]
    back = rules.index("%s -i docker0 -j RETURN" % CHAIN)
    assert accept
    assert back < min(accept)  # what comes from Docker's own networks is none of ours
    user = host.of("filter", "DOCKER-USER")
    assert "DOCKER-USER -j " + CHAIN in user[-2:]
    assert user[-1] in ("DOCKER-USER -j " + CHAIN, "DOCKER-USER -j RETURN")
    kept = host.text()
    assert published_ports.keep(host) is None  # again: an earlier copy is left alone
    assert host.text() == kept
    assert published_ports.release(host) is None
    assert {table: sorted(rules) for table, rules in host.tables.items()} == before
    assert CHAIN not in host.text()
    assert published_ports.release(host) is None


def test_what_the_owner_of_the_host_drops_stays_dropped() -> None:
    text = (FIXTURES / "trixie.txt").read_text()
    owner = "-A DOCKER-USER ! -s 10.0.0.0/8 -j DROP"
    host = Firewall(text.replace("-A DOCKER-USER", owner + "\n-A DOCKER-USER", 1))
    published_ports.keep(host)
    assert host.of("filter", "DOCKER-USER") == [
        owner[3:],
        "DOCKER-USER -j " + CHAIN,
        "DOCKER-USER -j RETURN",
    ]


def test_without_a_chain_for_the_owner_it_comes_first() -> None:
    lines = (FIXTURES / "trixie.txt").read_text().split("\n")
    host = Firewall("\n".join(line for line in lines if "DOCKER-USER" not in line))
    published_ports.keep(host)
    assert host.of("filter", "FORWARD")[0] == "FORWARD -j " + CHAIN


@pytest.mark.parametrize("text", ["", "*nat\n:DOCKER - [0:0]\nCOMMIT\n", "*filter\nCOMMIT\n"])
def test_where_nothing_is_published_nothing_is_kept(text: str) -> None:
    host = Firewall(text)
    assert published_ports.keep(host) is None
    assert CHAIN not in host.text()


def test_a_refusal_of_iptables_is_told() -> None:
    host = Firewall((FIXTURES / "trixie.txt").read_text())
    original = host.run
    host.run = lambda argv, timeout=60.0, stdin=None: (  # type: ignore[method-assign]
        Completed(4, "", "Another app holds the lock")
        if "restore" in argv[0]
        else original(argv, timeout, stdin)
    )
    assert published_ports.keep(host) == "iptables-restore: Another app holds the lock"


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners, as root does")
@pytest.mark.parametrize("starts", [True, False])
def test_a_restart_keeps_them_until_the_daemon_answers(
    starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with act_host('{"live-restore": true}', ["web"]) as host:
        for name in ("keep", "release"):
            monkeypatch.setattr(
                published_ports, name, lambda host, name=name: host.calls.append(name)
            )
        host.daemon.refuses = lambda document: (
            "no" if document.get("debug") and not starts else None
        )
        answer = apply(host, plan(json_set(host, "debug", True), effect="restart"))
        outcome = "committed" if starts else "rolled_back"
        assert answer["transaction"]["outcome"] == outcome, answer.get("msg")
        calls: list[typing.Any] = [c for c in host.calls if "restart" in c or " " not in c]
        if starts:
            assert calls == ["keep", "systemctl restart docker.service", "release"]
        else:
            restart = "systemctl restart docker.service"
            assert calls == ["keep", restart, restart, "release", "release"]
