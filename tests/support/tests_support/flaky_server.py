"""A real MLflow server behind a proxy that can be told to fail."""

import contextlib
import http.client
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cluster.free_ports import free_ports
from cluster.processes import end_tree, start_tree

SLOW_S = 2.0


class FlakyServer:
    """`mode` is up, down (hangs up without a word), slow (2 s a call) or 500.

    With an `authorization`, whoever does not send that header is refused.
    """

    def __init__(self, backend_port, *, authorization=None):
        self.mode = "up"
        self.calls = 0
        self._authorization = authorization
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                owner.calls += 1
                owner._answer(self, backend_port)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request, backend_port):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.mode == "down":
            request.close_connection = True
            return
        if self._authorization not in (None, request.headers.get("Authorization")):
            request.send_error(401)
            return
        if self.mode == "500":
            request.send_error(500)
            return
        if self.mode == "slow":
            time.sleep(SLOW_S)
        backend = http.client.HTTPConnection("127.0.0.1", backend_port, timeout=60)
        with contextlib.closing(backend):
            backend.request(request.command, request.path, body, dict(request.headers))
            answer = backend.getresponse()
            content = answer.read()
        with contextlib.suppress(OSError):  # the client may have lost its patience
            request.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)


@contextlib.contextmanager
def serve_mlflow(folder):
    """Run a real MLflow server on a store in a folder; yield its port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        process = start_tree(command, output=log)
    try:
        deadline = time.monotonic() + 90
        while not _answers(port):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        yield port
    finally:
        end_tree(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def _answers(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
