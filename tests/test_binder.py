"""What repo2docker (Binder) makes of this checkout, as far as that can be seen without a container engine and conda."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from browser import serve
from conftest import ROOT
from jupyter_tools import Server
from test_project import ENVIRONMENT_PYTHON

from tools.pack import copy_tutorial

REPO2DOCKER = "jupyter-repo2docker==2026.4.0"
START = "notebooks/00_start_here.ipynb"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    copy_tutorial(tmp_path / "checkout")
    return tmp_path / "checkout"


@pytest.fixture(scope="module")
def repo2docker(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("repo2docker")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/pip", "install", "-q", REPO2DOCKER]
    if subprocess.run(pip).returncode:
        if os.environ.get("CI"):
            pytest.fail("repo2docker could not be installed")
        pytest.skip("pip reaches no registry")
    identity = ["--user-id", "1000", "--user-name", "jovyan"]  # root is refused
    return [str(folder / "bin/jupyter-repo2docker"), "--no-build", "--debug", *identity]


def dockerfile(repo2docker: list[str], checkout: Path) -> str:
    done = subprocess.run([*repo2docker, str(checkout)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_repo2docker_takes_python_the_environment_and_post_build(repo2docker: list[str], checkout: Path) -> None:
    said = dockerfile(repo2docker, checkout)
    assert f"Building conda environment for python={ENVIRONMENT_PYTHON}\n" in said
    steps = [
        r"COPY --chown=1000:1000 src/ \$\{REPO_DIR\}/\n",  # before the environment, because of `-e .`
        r'env update -p \$\{NB_PYTHON_PREFIX\} --file "environment.yml"',
        r"RUN chmod \+x postBuild\nRUN ./postBuild\n",
        r'CMD \["jupyter", "notebook", "--ip", "0\.0\.0\.0"\]',
    ]
    assert re.search(".*".join(steps), said, re.DOTALL), said
    # The control, and why the version is given exactly: a range counts as none.
    text = (checkout / "environment.yml").read_text()
    (checkout / "environment.yml").write_text(text.replace(f"python={ENVIRONMENT_PYTHON}", "python>=3.11"))
    assert f"python={ENVIRONMENT_PYTHON}\n" not in dockerfile(repo2docker, checkout)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return an environment's Python, with all that this one has, and with settings of its own."""
    packages = next(Path(name) for name in sys.path if name.endswith("site-packages"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    (folder,) = (tmp_path / "env").rglob("site-packages")
    (folder / "all.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    shutil.copytree(Path(sys.prefix) / "share" / "jupyter", tmp_path / "env/share/jupyter", symlinks=True)
    return tmp_path / "env" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="repo2docker's images are of Linux")
@pytest.mark.parametrize("built", [True, False], ids=["after postBuild", "without it, the control"])
def test_a_lab_that_run_py_did_not_start_has_our_settings(
    built: bool, checkout: Path, environment: Path, tmp_path: Path
) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MCIOT_", "JUPYTER"))}
    variables["PATH"] = os.pathsep.join([str(environment.parent), os.environ["PATH"]])
    variables["MCIOT_WORKSPACE"] = str(tmp_path / "workspace")
    for _ in range(2 if built else 0):  # "running it twice should not produce different results"
        subprocess.run(["./postBuild"], cwd=checkout, env=variables, check=True)
    command = ["-m", "jupyterlab", "--allow-root", f"--ServerApp.root_dir={checkout}"]
    with serve(command, tmp_path, variables, environment) as url:
        address = urlsplit(url)
        server = Server(f"{address.scheme}://{address.netloc}", address.query.rpartition("token=")[2])
        settings = Server(f"{server.address}/lab", server.token)
        news = settings.call("GET", "/settings/@jupyterlab/apputils-extension:notification").json()
        assert (news["schema"]["properties"]["fetchNews"]["default"] == "false") == built
        (loaded,) = server.execute(["import sys; print('mciot_nb.ui.displays' in sys.modules)"])
        assert loaded["text"] == f"{built}\n"
        before = (checkout / START).read_bytes()
        model = server.call("GET", f"/contents/{START}").json()
        for cell in model["content"]["cells"]:
            cell |= {"execution_count": 99} if cell["cell_type"] == "code" else {}
        assert server.call("PUT", f"/contents/{START}", json=model).ok
        assert ((checkout / START).read_bytes() == before) == built
        if built:
            cells = [cell.source for cell in nbformat.read(checkout / START, 4).cells if cell.cell_type == "code"]
            outputs = server.execute(cells, "notebooks")
            assert outputs and [output for output in outputs if "ename" in output] == []
