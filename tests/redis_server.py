"""Redis as a process, for tests: in the test's folder, ended by its pid. Plain (processes.py) speaks to it as to a tallyd."""
import os
import pathlib
import shutil
import signal
import socket
import subprocess

from processes import WAIT_S, _die_with


class Redis:
    """One redis-server on a Unix socket of the folder, and on a port where one is given. `settings`: of its configuration."""

    def __init__(self, folder, name="redis", port=0, settings=(), sentinel=None):
        program = shutil.which("redis-server")
        if program is None:
            raise AssertionError("redis-server is not installed (Debian: apt-get install redis-server)")
        self.folder, self.name, self.port, self.clients = pathlib.Path(folder), name, port, []
        self.socket = str(self.folder / f"{name}.sock")
        (self.folder / name).mkdir(exist_ok=True)
        self.log = self.folder / f"{name}.log"
        words = [program]
        if sentinel is not None:  # it writes its file
            (self.folder / f"{name}.conf").write_text(sentinel)
            words += [str(self.folder / f"{name}.conf"), "--sentinel"]
        words += ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", self.socket, "--dir", str(self.folder / name)]
        if sentinel is None:
            words += ["--save", "", "--appendonly", "no"]
        for setting, value in settings:
            words += ["--" + setting, *value.split()]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with(os.getpid()))
        self._wait()

    def _wait(self):
        """Until it accepts: it binds its socket and listens before it says so."""
        while True:
            try:
                self.connect().close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise AssertionError(f"redis-server ended:\n{self.log.read_text(errors='replace')}")

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        try:
            connection.connect(self.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def end(self, number=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(WAIT_S)
        for one in self.clients:
            one.close()
        pathlib.Path(self.socket).unlink(missing_ok=True)
