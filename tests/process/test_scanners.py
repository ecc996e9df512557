"""What attackers' and auditors' tools find: slowhttptest in its four modes on both ports, sslscan."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trustme

from tests.support.child import service
from tests.support.tools import need, run

MODES = {"slow heads": "-H", "slow bodies": "-B", "ranges": "-R", "slow reading": "-X"}
CLIENTS, SECONDS = 120, 10
PATIENCE_SECONDS = 7
"""Of the tool's own probe: at capacity a slow head has 5 s before it is evicted."""


@pytest.mark.alone
def test_both_ports_answer_while_slowhttptest_holds_them(tmp_path: Path) -> None:
    """480 slow connections on a main port that holds 100, and as many on the admin port."""
    tool = need("slowhttptest", "slowhttptest")
    with service(tmp_path / "log", "--work-units", "2000", "--max-connections", "100") as child:
        address, admin = child.ready()
        targets = {"main": f"{address}/data", "admin": f"{admin}/metrics"}

        def attack(port: str, mode: str) -> Path:
            out = tmp_path / f"{port} {mode}"
            command = [tool, MODES[mode], "-u", targets[port], "-c", str(CLIENTS), "-r", str(CLIENTS)]
            command += ["-i", "1", "-l", str(SECONDS), "-p", str(PATIENCE_SECONDS), "-g", "-o", str(out)]
            run(command, tmp_path, SECONDS + 30)
            return out.with_name(f"{out.name}.csv")

        with ThreadPoolExecutor(8) as attackers:
            tables = list(attackers.map(attack, *zip(*[(p, m) for p in targets for m in MODES], strict=True)))
        for table in tables:
            rows = list(csv.DictReader(table.read_text().splitlines()))
            assert max(int(row["Connected"]) + int(row["Closed"]) for row in rows) >= CLIENTS / 2, table
            assert all(int(row["Service Available"]) for row in rows[1:]), (table, rows)
        child.wait_until(lambda: child.scrape()["http_connections_active"] == 0)
        assert child.end() == 0


def test_sslscan_finds_no_old_protocol_and_no_weak_cipher(tmp_path: Path) -> None:
    tool = need("sslscan", "sslscan")
    made = trustme.CA().issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made.cert_chain_pems[0].write_to_path(cert)
    made.private_key_pem.write_to_path(key)
    flags = ("--work-units", "10", "--tls-cert", str(cert), "--tls-key", str(key))
    with service(tmp_path / "log", *flags) as child:
        address, _ = child.ready()
        code, said = run([tool, "--xml=-", address.removeprefix("https://")], tmp_path)
        assert child.end() == 0
    assert code == 0, said
    found = ET.fromstring(said[said.index("<?xml") :])
    enabled = {
        f"{one.get('type')}{one.get('version')}"
        for one in found.iter("protocol")
        if one.get("enabled") == "1"
    }
    assert enabled == {"tls1.2", "tls1.3"}
    ciphers = list(found.iter("cipher"))
    assert {one.get("strength") for one in ciphers} <= {"strong", "acceptable"}, said
    assert min(int(one.get("bits", 0)) for one in ciphers) >= 128
    assert all(one.get("vulnerable") == "0" for one in found.iter("heartbleed")), said
    assert [one.get("supported") for one in found.iter("renegotiation")] == ["0"]
