"""A JupyterHub for a class, on one machine with an account for each trainee; docs/class.md says how to set it up.

Start it as root, in a checkout that everyone can read and only root can write::

    .venv/bin/jupyterhub -f docs/jupyterhub_config.py
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = CHECKOUT / ".venv" / "bin"

#: What runs, as the trainee, when they open the hub: a copy of the notebooks for them to work in, the first time; then
#: their Jupyter server. The helper package and its data stay in the checkout.
START = f"""
set -e
if ! [ -e "$HOME/tutorial" ]; then
  rm -rf "$HOME/.tutorial"  # of a copy that was cut off
  mkdir "$HOME/.tutorial"
  (cd "{CHECKOUT}" && cp -R README.md data docs notebooks "$HOME/.tutorial")
  mv "$HOME/.tutorial" "$HOME/tutorial"
fi
MCIOT_WORKSPACE="$HOME/tutorial/workspace" exec "{BIN}/jupyterhub-singleuser" "$@"
"""

c = get_config()  # noqa: F821 - JupyterHub defines it
c.JupyterHub.spawner_class = "jupyterhub.spawner.LocalProcessSpawner"  # each server runs under its trainee's account
c.Spawner.cmd = ["/bin/sh", "-c", START, "sh"]
c.Spawner.environment = {
    "JUPYTER_CONFIG_PATH": str(CHECKOUT / "jupyter-config"),  # the Lab's settings for this tutorial
    "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",  # the Lab's terminal has this Python, openssl and keytool
    "PYTHONUTF8": "1",
}
c.Spawner.default_url = "/lab/tree/tutorial/notebooks/00_start_here.ipynb"
c.JupyterHub.authenticator_class = "pam"  # a trainee's name and password on this machine
c.Authenticator.allow_all = True  # everyone who has an account
c.Authenticator.blocked_users = {"root"}
