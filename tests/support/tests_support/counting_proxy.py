"""A proxy that counts: HTTP requests by method, and bytes each way. It looks at nothing else, so
that signatures over hosts and headers hold."""

import contextlib
import re
import socket
import threading
from collections import Counter

_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) /\S* HTTP/1\.1\r\n")
_LONGEST_LINE = 4_096
_PIECE_BYTES = 2**16


class CountingProxy:
    """Hands everything on to a port of this machine, as long as its `with` block lasts."""

    def __init__(self, port):
        self._port = port
        self._lock = threading.Lock()
        self.reset()

    def reset(self):
        """Begin to count anew."""
        self.requests, self.sent, self.received = Counter(), 0, 0

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                for source, sink, note in (
                    (client, server, self._note_sent),
                    (server, client, self._note_received),
                ):
                    pump = threading.Thread(target=_pump, args=(source, sink, note), daemon=True)
                    pump.start()

    def _note_sent(self, before, piece):
        """Count what a client sends; `before` is the end of what came before it."""
        both = before + piece
        methods = [m[1].decode() for m in _REQUEST.finditer(both) if m.end() > len(before)]
        with self._lock:
            self.requests.update(methods)
            self.sent += len(piece)

    def _note_received(self, before, piece):
        with self._lock:
            self.received += len(piece)


def _pump(source, sink, note):
    before = b""
    with contextlib.suppress(OSError), source, sink:
        while piece := source.recv(_PIECE_BYTES):
            note(before, piece)
            before = (before + piece)[-_LONGEST_LINE:]
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
