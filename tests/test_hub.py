"""A real JupyterHub on which two accounts of this machine work at once, set up as docs/class.md says."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import requests
from browser import free_port
from conftest import PASSPHRASE, ROOT, run, tool
from jupyter_tools import Server
from platform_tools import SECONDS, running, wait_for

from mciot_nb.local_platform import LocalPlatform, is_alive
from tools.pack import copy_tutorial

pytestmark = pytest.mark.slow

#: What the tests install, apart from the tutorial; conda and Debian have both, too.
HUB, PROXY, UV = "jupyterhub==6.1.1", "configurable-http-proxy@5.3.0", "uv==0.13.9"
CONNECT = "notebooks/07_connect_over_mqtt.ipynb"
#: Without accounts of its own a hub can't be tried, and Windows has none.
IS_ROOT = os.name != "nt" and os.geteuid() == 0
#: The hub's API is called with it; the hub of a test is on the loopback, for a minute.
CONFIG = """
load_subconfig({sample!r})
c.JupyterHub.bind_url = "http://127.0.0.1:{ports[0]}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{ports[1]}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{ports[2]}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.services = [dict(name="test", api_token={token!r})]
scopes = ["admin:users", "admin:servers", "tokens", "access:servers"]
c.JupyterHub.load_roles = [dict(name="test", scopes=scopes, services=["test"])]
"""
TOKEN = "only-for-the-hub-of-this-test"


@dataclass
class Account:
    """A trainee: an account of the machine, with a home that others may look into, as Debian makes it."""

    name: str
    home: Path
    python: Path

    @property
    def tutorial(self) -> Path:
        return self.home / "tutorial"

    @property
    def platform(self) -> LocalPlatform:
        return running(self.tutorial / "workspace")

    @property
    def uid(self) -> int:
        return self.home.stat().st_uid

    def run(self, code: str, *arguments: object, of: object = None) -> Any:
        """Run Python under this account, with ``of`` on its input; return what it printed. Both are JSON."""
        environment = {"HOME": str(self.home), "PATH": os.defpath, "MCIOT_WORKSPACE": f"{self.tutorial}/workspace"}
        who = {"user": self.name, "group": self.name, "extra_groups": [], "cwd": self.home, "env": environment}
        command = [str(self.python), "-c", code, *map(str, arguments)]
        options = {"input": json.dumps(of), "capture_output": True, "text": True, "timeout": SECONDS}
        done = subprocess.run(command, **who, **options)  # type: ignore[call-overload]
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@dataclass
class Hub:
    address: str
    accounts: list[Account]
    log: Path

    def call(self, method: str, path: str) -> requests.Response:
        return Server(f"{self.address}/hub", TOKEN).call(method, path)

    def spawn(self, account: Account) -> None:
        self.call("POST", f"/users/{account.name}")
        asked = self.call("POST", f"/users/{account.name}/server")
        assert asked.status_code in (201, 202), asked.text + self.log.read_text()
        wait_for(lambda: self.server(account).call("GET", "/status").ok)

    def server(self, account: Account) -> Server:
        return Server(f"{self.address}/user/{account.name}", TOKEN)


def python_for_everyone() -> str:
    """Return a Python that every account can run: this one may lie in root's home."""
    for python in (str(Path(sys.base_prefix) / "bin/python3"), "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            code = "import sys; sys.exit(sys.version_info < (3, 11))"
            subprocess.run([python, "-I", "-c", code], user="nobody", cwd="/", check=True, capture_output=True)
            return python
    return pytest.skip("no Python 3.11 or later is here that every account can run")


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """Copy the tutorial to where everyone can read it, and install it there with JupyterHub and its proxy."""
    if not IS_ROOT:
        pytest.skip("only root can make accounts, and start servers under them")
    for name in ("useradd", "userdel", "node"):
        tool(name)
    folder = Path(tempfile.mkdtemp(prefix="mciot-hub-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        copy_tutorial(folder / "tutorial")
        python, pip = folder / "tutorial/.venv/bin/python", [sys.executable, "-m", "pip", "-q"]
        run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, PROXY)
        for command in (
            [python_for_everyone(), "-m", "venv", "--without-pip", str(python.parents[1])],
            [*pip, "install", "--target", str(folder / "uv"), UV],
            [folder / "uv/bin/uv", "pip", "install", "-q", "-p", python, "-c", "constraints.txt", "-e", ".", HUB],
        ):
            done = subprocess.run(command, cwd=folder / "tutorial", capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def account(folder: Path, name: str) -> Iterator[Account]:
    home = folder / "home" / name
    home.parent.mkdir(exist_ok=True)
    run("useradd", "--create-home", "--home-dir", home, name)
    home.chmod(0o755)  # Debian's useradd; what protects a file is the file's own mode
    made = Account(name, home, folder / "tutorial/.venv/bin/python")
    try:
        yield made
    finally:
        for process in psutil.process_iter(["uids"]):
            if process.info["uids"] and process.info["uids"].real == made.uid:
                process.kill()
        wait_for(lambda: run("userdel", "--remove", name, check=False).returncode in (0, 6))


@pytest.fixture(scope="module")
def hub(installed: Path) -> Iterator[Hub]:
    """Start a hub with the sample configuration; both accounts have run 07, at the same time."""
    sample = installed / "tutorial/docs/jupyterhub_config.py"
    proxy, ports = installed / "node_modules/.bin/configurable-http-proxy", [free_port() for _ in range(3)]
    config, log = installed / "config.py", installed / "hub.log"
    config.write_text(CONFIG.format(sample=str(sample), ports=ports, proxy=str(proxy), token=TOKEN))
    config.chmod(0o600)
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with contextlib.ExitStack() as stack:
        accounts = [stack.enter_context(account(installed, f"mciot{os.getpid()}{who}")) for who in "ab"]
        out = stack.enter_context(log.open("w"))
        command = [installed / "tutorial/.venv/bin/jupyterhub", "-f", config]
        process = subprocess.Popen(command, cwd=installed, env=environment, stdout=out, stderr=out)
        try:
            made = Hub(f"http://127.0.0.1:{ports[0]}", accounts, log)
            wait_for(lambda: process.poll() is not None or is_up(made))
            assert process.poll() is None, log.read_text()
            yield made
        finally:
            process.terminate()  # it ends the servers and the proxy
            process.wait(SECONDS)


def is_up(hub: Hub) -> bool:
    with contextlib.suppress(requests.RequestException):
        return hub.call("GET", "/").ok
    return False


@pytest.fixture(scope="module")
def ran(hub: Hub) -> dict[str, tuple[list[Any], float, float]]:
    """Both accounts open 07 and run all of its cells at once; return each one's outputs, beginning and end."""
    sources = [cell.source for cell in nbformat.read(ROOT / CONNECT, 4).cells if cell.cell_type == "code"]

    def work(account: Account) -> tuple[list[Any], float, float]:
        hub.spawn(account)
        began = time.monotonic()
        return hub.server(account).execute(sources, "tutorial/notebooks"), began, time.monotonic()

    with ThreadPoolExecutor() as pool:
        return dict(zip((one.name for one in hub.accounts), pool.map(work, hub.accounts), strict=True))


def log_in(hub: Hub, name: str, password: str) -> requests.Response:
    """Log in at the page that a trainee sees."""
    with requests.Session() as browser:
        browser.trust_env = False
        page = browser.get(f"{hub.address}/hub/login", timeout=SECONDS)
        form = {"username": name, "password": password, "_xsrf": browser.cookies["_xsrf"]}
        options = {"timeout": SECONDS, "allow_redirects": False, "headers": {"Referer": page.url}}
        return browser.post(f"{hub.address}/hub/login", form, **options)


def test_an_account_logs_in_with_its_password_of_the_machine(hub: Hub) -> None:
    name = hub.accounts[0].name
    run("chpasswd", input=f"{name}:{PASSPHRASE}")
    assert log_in(hub, name, "something else").status_code == 403
    assert log_in(hub, name, PASSPHRASE).status_code == 302


def test_two_accounts_run_07_at_once_each_with_a_platform_of_its_own(hub: Hub, ran: dict[str, Any]) -> None:
    first, second = hub.accounts
    assert ran[first.name][1] < ran[second.name][2] and ran[second.name][1] < ran[first.name][2]
    ports = [(one.platform.mqtt[1], one.platform.https) for one in hub.accounts]
    assert not set(ports[0]) & set(ports[1])
    for one in hub.accounts:
        outputs, *_ = ran[one.name]
        assert [output for output in outputs if "ename" in output] == []
        assert any("c8y_Temperature" in str(output) for output in outputs)
        assert psutil.Process(one.platform.pid).uids().real == one.uid == (one.tutorial / "notebooks").stat().st_uid
        assert one.platform.measurements()["value"].tolist() == [21.5, 21.7]
        devices = one.platform.log().query("client_id != ''")
        assert devices["code"].tolist() == ["CONNECTED", "CLIENT_ID_MISMATCH", "CONNECTED"]


#: Prints which of the files that are named on standard input can be read.
READ = """
import json, sys
read = []
for name in json.load(sys.stdin):
    try:
        open(name, "rb").close()
        read.append(name)
    except PermissionError:
        pass
print(json.dumps(read))
"""


def test_neither_reads_the_others_keys_passphrase_or_passwords(hub: Hub, ran: dict[str, Any]) -> None:
    for one, other in (hub.accounts, hub.accounts[::-1]):
        workspace, platform = one.tutorial / "workspace", one.platform.folder
        files = [path for path in one.home.rglob("*") if path.is_file()]
        mine, theirs = ({Path(name) for name in who.run(READ, of=list(map(str, files)))} for who in (one, other))
        assert mine == set(files), "the control"
        secret = {workspace / "passphrase", platform / "credentials.json", platform / "serverKey.pem"}
        secret |= {path for path in files if path.name.endswith(("Key.pem", ".pkcs12", ".jks"))}
        locks = {workspace / ".caCertificate.lock", platform / "lock"}  # who can open one can hold it
        assert len(secret) == 9 and locks < set(files)
        assert {path.stat().st_mode & 0o077 for path in secret | locks} == {0}, "whatever folder they lie in"
        assert one.tutorial / "README.md" in theirs, "the control: the home is not closed"
        assert not [path for path in theirs if path.is_relative_to(workspace)], "the workspace is"
        logins = json.loads((platform / "credentials.json").read_text()).values()
        words = [entry["password"].encode() for login in logins for entry in (login, *login["others"])]
        words += [(workspace / "passphrase").read_bytes().strip(), b"PRIVATE KEY-----\nM"]
        assert {path for path in theirs for word in words if word in path.read_bytes()} == set()


#: Logs in to a tenant with this account's password, and connects this account's device.
KNOCK = """
import json, sys
from dataclasses import replace
from pathlib import Path
from mciot_nb import Device, OnboardingError, Workspace

def outcome(call):
    try:
        return str(call() or "")
    except OnboardingError as error:
        return error.code

https, host, port = sys.argv[1:]
certificate = str(Path("theirs.pem").absolute())  # it is no secret
Path(certificate).write_text(json.load(sys.stdin))
workspace = Workspace()
tenant = replace(workspace.tenant(), url=https, mqtt=(host, int(port)), verify=certificate)
files = [workspace.device_file(f"device{name}.pem") for name in ("CertChain", "Key")]
device = Device(host, int(port), chain=files[0], key=files[1], passphrase=workspace.passphrase, trusted=certificate)
print(json.dumps([outcome(lambda: len(tenant.trusted_certificates.list())), outcome(device.connect)]))
"""

#: Ends a process if it may, and prints why it may not.
KILL = """
import json, os, sys
try:
    os.kill(int(sys.argv[1]), 15)
except OSError as error:
    print(json.dumps(str(error)))
"""


def test_neither_gets_into_the_others_tenant(hub: Hub, ran: dict[str, Any]) -> None:
    for one, other in (hub.accounts, hub.accounts[::-1]):
        for knocking, outcome in ((one, ["1", ""]), (other, ["HTTP_401", "ALERT_UNKNOWN_CA"])):
            platform, proof = one.platform, one.platform.server_certificate.read_text()
            assert knocking.run(KNOCK, platform.https, *platform.mqtt, of=proof) == outcome
            assert (platform.log()["code"].iloc[-1] == "UNKNOWN_CA") == (knocking is other)
        assert "not permitted" in other.run(KILL, one.platform.pid)


def test_one_platform_for_all_runs_beside_the_hub(hub: Hub, ran: dict[str, Any]) -> None:
    """As docs/class.md says: with the hub's Python, which run.py then leaves as it is."""
    account = hub.accounts[0]
    checkout = account.python.parents[2]
    command = [account.python, checkout / "run.py", "class", "--tenants", "2"]
    with subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            known = json.loads(process.stdout.readline())
            assert not {known["mqtt"][1]} & {one.platform.mqtt[1] for one in hub.accounts}
            files = [str(path) for path in (checkout / "class").rglob("*") if path.suffix in (".html", ".json", ".pem")]
            public = {known["server_certificate"], str(checkout / "class/platform/running.json")}
            assert set(account.run(READ, of=files)) == public and len(files) == 7
        finally:
            process.terminate()


def test_the_labs_settings_arrive(hub: Hub, ran: dict[str, Any]) -> None:
    one, contents = hub.accounts[0], f"/contents/tutorial/{CONNECT}"
    server = hub.server(one)
    (loaded,) = server.execute(["import sys; print('mciot_nb.ui.displays' in sys.modules)"])
    assert loaded["text"] == "True\n", "a kernel loads the extension"
    before = (one.tutorial / CONNECT).read_bytes()
    notebook = server.call("GET", contents).json()
    for cell in notebook["content"]["cells"]:
        cell |= {"outputs": [], "execution_count": 99} if cell["cell_type"] == "code" else {}
    assert server.call("PUT", contents, json=notebook).ok
    assert (one.tutorial / CONNECT).read_bytes() == before == (ROOT / CONNECT).read_bytes(), "as it is committed"


def test_a_platform_ends_with_its_accounts_server_and_not_with_the_others(hub: Hub, ran: dict[str, Any]) -> None:
    one, other = hub.accounts
    hers, his = (psutil.Process(each.platform.pid) for each in (one, other))
    hub.call("DELETE", f"/users/{one.name}/server")
    wait_for(lambda: not is_alive(hers))
    assert is_alive(his)
    hub.spawn(one)
    again = "from mciot_nb import Workspace; print(len(Workspace().tenant().trusted_certificates.list()))"
    (kept,) = hub.server(one).execute([again])
    assert kept["text"] == "1\n" and one.platform.pid != hers.pid
