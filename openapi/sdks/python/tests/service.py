"""A real server for tests, and keys of it. `MODELPRESS_BINARY` names the program; check.sh sets it."""
from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

BINARY = os.environ.get("MODELPRESS_BINARY", "")


class Server:
    """`modelpress serve` on a free port; can be killed and started again on the same data."""

    def __init__(self, folder: Path, *flags: str) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{s.getsockname()[1]}"
        self.url = f"http://{self.address}"
        self.data = folder / "data"
        self._log, self._flags = folder / "server.log", flags
        self.start()

    def start(self) -> None:
        command = [BINARY, "serve", "--listen", self.address, "--data-dir", str(self.data), *self._flags]
        env = {name: value for name, value in os.environ.items() if not name.startswith("MODELPRESS_")}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
        for _ in range(300):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=2).read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"the server does not start:\n{self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


def new_key(data: Path) -> str:
    """A key for everything, made by the command line as an operator makes the first one."""
    command = [BINARY, "keys", "create", "--name", "test", "--scopes", "admin", "--data-dir", str(data)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    return next(word for word in made.stdout.split() if word.startswith("mp_"))
