"""The fleet in the real Lab, in a real browser: the picture moves, and a site that drops out is seen to."""

import re

import pytest
from browser import RUN_TIMEOUT, Notebooks, notebooks, photograph, serious
from conftest import ROOT
from playwright.sync_api import expect

from mciot_nb import Workspace

pytestmark = pytest.mark.slow
__all__ = ["notebooks"]  # the fixture

MAKE = """
from mciot_nb import LiveFleet, Workspace, make_fleet

workspace = Workspace({!r})
tenant = workspace.use_profile("current").tenant
workspace.catch_up("issuer")
workspace.upload_ca(tenant)
folder = workspace.folder / "fleet"
fleet = make_fleet({!r}, workspace.signer(), folder, workspace.passphrase)
live = LiveFleet(fleet, folder, tenant, workspace.passphrase)
live
"""
LOSE = """
tenant.trusted_certificates.check_revocations()
tenant.trusted_certificates.revoke(fleet["serial"][fleet["site"] == "Ulm"])
live.reconnect()
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_site_drops_out_of_the_picture(notebooks: Notebooks, quick_workspace: Workspace, dark: bool) -> None:
    quick_workspace.use_profile("current")
    make = MAKE.format(str(quick_workspace.folder), str(ROOT / "data" / "fleet.csv"))
    with notebooks.run([make, LOSE, "live.stop()"], dark=dark, height=1000) as page:
        pictures = page.locator("img.mciot-picture")
        everyone = re.compile(r"Bremen: 10 of 10 send; .*Ulm: 0 of 12 send, 12 CONNACK_5\.")
        expect(pictures.first).to_have_attribute("alt", everyone, timeout=RUN_TIMEOUT)
        assert pictures.count() == 1, "one image, which is drawn again in place"
        page.wait_for_timeout(300)
        photograph(page, f"fleet_{'dark' if dark else 'light'}")
        assert serious(page, ".jp-OutputArea") == []
