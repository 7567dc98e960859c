"""What a port answers to somebody without a credential.

`python -m tests_support.knocking` reads [[host, port], …] as JSON and prints what each is.
"""

import http.client
import importlib
import json
import pkgutil
import socket
import ssl
import sys

import grpc
import ray.core.generated

METRICS = b"# HELP "
TIMEOUT_S = 10


def all_methods():
    """Return the path of every gRPC method that Ray's own sources describe."""
    paths = set()
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            found = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR
            for service in found.services_by_name.values():
                paths |= {f"/{service.full_name}/{each.name}" for each in service.methods}
    # Ray's Python has no description of these.
    paths |= {f"/ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull", "FreeObjects")}
    paths.add("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")
    return sorted(paths)


def codes(host, port, methods):
    """Return the gRPC status of each method, called without a token; None where it is no gRPC."""
    found = {}
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        for method in methods:
            try:
                channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
                found[method] = "OK"
            except grpc.RpcError as error:
                found[method] = error.code().name
    return found


def answer(host, port, path, method="GET"):
    """Return (status, beginning of the content) over HTTP, None where a port speaks no HTTP."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()[:20]
    except (http.client.BadStatusLine, ConnectionResetError):
        return None
    finally:
        connection.close()


def asks_for_certificate(host, port):
    """Return whether a port speaks TLS, and only to who shows a certificate; None: no TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain) as talk,
        ):
            return talk.recv(1) == b""  # in TLS 1.3 the refusal comes after the handshake
    except ssl.SSLError as error:
        return True if "CERTIFICATE_REQUIRED" in str(error) else None
    except OSError:
        return None


def kind_of(host, port, methods):
    """Return what a port is, by what it answers without a credential."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except OSError:
        return "closed"
    if (asks := asks_for_certificate(host, port)) is not None:
        return "TLS" if asks else "TLS that asks for no certificate"
    page = answer(host, port, "/")
    if page is None:
        found = codes(host, port, methods)
        refused = {m: c for m, c in found.items() if c == "UNAUTHENTICATED"}
        others = {m: c for m, c in found.items() if c not in ("UNAUTHENTICATED", "UNIMPLEMENTED")}
        return "grpc" if refused and not others else f"gRPC that answers: {others}"
    if page[1].startswith(METRICS):
        return "metrics"
    asked = ("/api/jobs/", "/api/v0/nodes", "/api/version", "/metrics", "/anything")
    statuses = {answer(host, port, path, m)[0] for path in asked for m in ("GET", "POST", "PUT")}
    if statuses != {401}:
        return f"HTTP that answers: {statuses}"
    return "http" if page[0] == 401 else "dashboard"


if __name__ == "__main__":
    methods = all_methods()
    kinds = [kind_of(host, port, methods) for host, port in json.load(sys.stdin)]
    json.dump(kinds, sys.stdout)
