# Copyright: (c) 2026, the Bulkhead authors
# Apache License 2.0 (see LICENSE)
"""Takes docs/images/audit.png.

Run ``python -m tests.unit.audit_picture`` with the tools of ``tools/bootstrap --package chromium`` and
``PYTHONPATH=playbooks/collections``.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile

from playwright import sync_api

from tests.unit import audit_results
from tests.unit.checkout import ROOT
from tests.unit.test_audit_page import ARGUMENTS


def main() -> None:
    """Write the page about recorded hosts and photograph it."""
    waivers = [
        {"check": "5.5", "reason": "build runners", "owner": "ops", "expires": "2027-01-31"},
        {"check": "2.15", "reason": "waits for 29", "owner": "ops", "expires": "2026-06-30"},
    ]
    hosts = [
        audit_results.audited(f"{name}.example.org", audit_results.look(recorded), waivers=waivers)
        for name, recorded in (
            ("app01", "audit-hardened"),
            ("app02", "audit-hardened"),
            ("build01", "audit-bad"),
            ("lab01", "audit-daemon"),
            ("swarm01", "audit-swarm"),
        )
    ]
    lost = {"web09.example.org": audit_results.audit_report.Lost("unreachable", "no route to host")}
    with tempfile.TemporaryDirectory() as place, sync_api.sync_playwright() as playwright:
        folder = pathlib.Path(place) / "r"
        audit_results.write(folder, hosts, lost, ["html"])
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(ARGUMENTS)
        )
        page = browser.new_page(viewport={"width": 1200, "height": 1130})
        page.goto((folder / "index.html").as_uri())
        page.locator("#search").fill("privileged")
        page.locator("#rows summary").first.click()
        page.screenshot(path=ROOT / "docs" / "images" / "audit.png")
        browser.close()


if __name__ == "__main__":
    main()
