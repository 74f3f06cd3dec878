"""Serving the dashboard: `streamlit run app.py` with the files that belong to this netweld."""

import os
import subprocess
import sys

from merge_core import places
from merge_core.errors import StoreError


def serve(*, port: int | None, address: str, browser: bool) -> int:
    """Serve until interrupted; returns the exit status.

    Raises:
        StoreError: this installation has no dashboard.
    """
    command = streamlit_command(port=port, address=address, browser=browser)
    if os.name == "posix":
        # The server takes the place of this process, so that signals reach it and nothing is left.
        os.execv(command[0], command)
    return subprocess.call(command)


def streamlit_command(*, port: int | None, address: str, browser: bool) -> list[str]:
    """The command line of the server.

    Streamlit reads `.streamlit/config.toml` beside `app.py` wherever it is started, after the one
    of the current directory.

    Raises:
        StoreError: this installation has no dashboard.
    """
    app = places.dashboard() / "app.py"
    if not app.is_file():
        raise StoreError(
            f"The dashboard's app.py is not in {app.parent}; install netweld again, "
            f"with `pip install netweld` or, in a checkout, `pip install -e .`."
        )
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(app)]
    command += ["--server.address", address]
    if port is not None:
        command += ["--server.port", str(port)]
    if not browser:
        command += ["--server.headless", "true"]
    return command
