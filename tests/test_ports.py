"""A local platform that is started anew on other ports: all that shows it follows, and nothing asks at the old."""

import dataclasses
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from platform_tools import wait_for
from test_console import text

from mciot_nb import DeviceConsole, LocalPlatform, OnboardingError, TenantForm, TrustedCertificatesPanel, Workspace


def ports(platform: LocalPlatform) -> tuple[int, int]:
    return platform.mqtt[1], urlsplit(platform.https).port or 0


def launch(workspace: Workspace, mqtt: int = 0, https: int = 0) -> LocalPlatform:
    options = "--mqtt-port", str(mqtt), "--https-port", str(https)
    return LocalPlatform._launch(workspace.folder / "platform", "guide-2021", 1, "127.0.0.1", *options)


@contextmanager
def taken(*numbers: int) -> Iterator[list[int]]:
    """Take the ports, as another user's platform would; yields the ports of all who come."""
    came, listening = list[int](), [socket.create_server(("127.0.0.1", port)) for port in numbers]

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            came.append(server.getsockname()[1])
            connection.close()

    for server in listening:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
    try:
        yield came
    finally:
        for server in listening:
            server.shutdown(socket.SHUT_RDWR)
            server.close()


def test_everything_follows_a_platform_to_its_new_ports_and_nobody_else_is_asked(quick_workspace: Workspace) -> None:
    workspace = quick_workspace
    before = launch(workspace)
    workspace.catch_up("upload")
    tenant = workspace.tenant()
    device, settings = workspace.device(tenant), workspace.client_settings(tenant)
    panel, console, form = TrustedCertificatesPanel(workspace), DeviceConsole(workspace), TenantForm(workspace)
    panel.wait()
    copy = dataclasses.replace(tenant)  # which stays where it is
    before.stop()
    with taken(*ports(before)) as came:
        for ask in (tenant.trusted_certificates.list, device.connect, lambda: settings.mosquitto_pub):
            with pytest.raises(OnboardingError, match=r"is not running: workspace.tenant\(\) starts it") as refused:
                ask()
            assert refused.value.code == "NOT_REACHED"
        panel.refresh()
        panel.poll()
        console.connect()
        console._next_read = 0.0
        for each in (panel, console):
            each.wait()
            each.poll()
        assert "is not running" in text(panel._message) and "is not running" in text(panel._hint)
        assert "is not running" in text(console.ends) and "is not running" in text(console.trouble)

        after = launch(workspace, *ports(before))  # which are taken: the next free ones
        assert not set(ports(before)) & set(ports(after))
        panel.poll()
        panel.refresh()
        console._next_read = 0.0
        console.poll()
        assert f"Not connected to 127.0.0.1:{after.mqtt[1]}" in text(console.state) and text(console.trouble) == ""
        console.connect()
        form.test()
        for each in (panel, console):
            each.wait()
        assert "✓ Read: 1 certificate." in text(panel._message) and text(console._message) == "✓ Connected."
        assert f"Connected to 127.0.0.1:{after.mqtt[1]}" in text(console.state)
        assert "✓ CONNECTED" in text(console.ends) and str(after.mqtt[1]) in console.picture().text
        wait_for(lambda: "MQTT port answers" in text(form._result), 60)
        console.end()
        with device:
            assert repr(device) == f"Device 'device-0001', connected to 127.0.0.1:{after.mqtt[1]}"
        assert f"-p {after.mqtt[1]} " in settings.mosquitto_pub and str(after.mqtt[1]) in settings.paho
        assert tenant.devices.find("device-0001")

        assert came == []
        with pytest.raises(OnboardingError):  # the control: who does not follow is heard there
            copy.trusted_certificates.list()
        wait_for(lambda: came, 60)
        assert set(came) == {ports(before)[1]}
    after.stop()


def test_a_tenant_that_is_no_longer_there_is_not_replaced_by_another(quick_workspace: Workspace) -> None:
    platform = LocalPlatform.start(quick_workspace, tenants=2)
    first, second = platform.tenants
    platform.stop()
    shutil.rmtree(platform.folder)
    again = LocalPlatform.start(quick_workspace)
    assert first.trusted_certificates.list() == []  # the control
    with pytest.raises(OnboardingError, match="has no tenant"):
        second.trusted_certificates.list()
    with_others = platform.restart("current")  # by one who knows the first only
    assert with_others.profile == "current" and with_others.pid not in (platform.pid, again.pid)
    with_others.stop()
