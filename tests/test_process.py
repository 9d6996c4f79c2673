"""Settings of the libraries are made before torch is loaded, and the user's own win."""

import os
import subprocess
import sys
from importlib.metadata import version

from hagane.process import ENVIRONMENT, prepare


def test_the_users_own_settings_win(monkeypatch):
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    prepare()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert {name: os.environ[name] for name in ENVIRONMENT} == {**ENVIRONMENT, "GOMP_SPINCOUNT": "7"}


def test_asking_for_them_loads_no_torch():
    code = "import sys; import hagane.process; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_told_without_torch():
    code = "import sys; from hagane.cli import main; sys.argv = ['hagane', '--version']\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["hagane", version("hagane")]


def test_a_plan_for_a_cluster_takes_no_time_for_numpy_or_torch():
    code = "import sys, hagane.plan.cluster, hagane.preview; print([name for name in ('numpy', 'torch', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
