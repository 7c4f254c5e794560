"""A way to PostgreSQL that is lost in the middle of a commit."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path


class Severed:
    """Beside a server's socket, of that name in the directory `host`: lost at the commit by which `manage.py copy-from`
    hands over, before or after the server has heard of it; later sessions get through."""

    def __init__(self, server: str, *, heard: bool) -> None:
        self.server, self.heard, self.lost = server, heard, False
        self.host = tempfile.mkdtemp(prefix="severed-")
        self.line = socket.socket(socket.AF_UNIX)
        self.line.bind(f"{self.host}/{Path(server).name}")
        self.line.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, server = self.line.accept()[0], socket.socket(socket.AF_UNIX)
                server.connect(self.server)
                threading.Thread(target=self._ask, args=[client, server], daemon=True).start()
                threading.Thread(target=self._answer, args=[client, server], daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        handing_over = False
        with suppress(OSError), client, server:
            while data := client.recv(2**16):
                if handing_over and b"COMMIT" in data and not self.lost:
                    self.lost = True
                    if self.heard:
                        server.sendall(data)
                        time.sleep(1)
                    break
                handing_over = handing_over or b'"handed_over": true' in data
                server.sendall(data)
            for each in (client, server):
                each.shutdown(socket.SHUT_RDWR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        last = self.lost
        with suppress(OSError):
            while data := server.recv(2**16):
                if self.lost == last:
                    client.sendall(data)

    def close(self) -> None:
        self.line.close()
        shutil.rmtree(self.host)
