"""Whether an MLflow server answers, with the credentials that MLflow itself would take here.

Asked without MLflow, whose import takes longer than all checks may.
"""

import base64
import configparser
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

TIMEOUT_S = 5.0
_PLUGINS = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"


def find_fault(uri: str) -> str:
    """Return in one line why a server cannot be used from here, empty when it can."""
    request = urllib.request.Request(uri.rstrip("/") + _PATH)
    if header := _authorization():
        request.add_header("Authorization", header)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=_tls()):
            return ""
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (401, 403) and any(os.environ.get(name) for name in _PLUGINS):
                return ""  # it answers, to what only MLflow itself can say
            has = "these credentials" if header else "no credentials"
            return f"answers with {error.code} to {has}"
    except (OSError, ValueError) as error:
        return f"does not answer: {getattr(error, 'reason', None) or error}"


def _authorization() -> str:
    known = configparser.ConfigParser(interpolation=None)
    known.read(Path("~/.mlflow/credentials").expanduser())
    file = known["mlflow"] if known.has_section("mlflow") else {}
    user, password = (
        os.environ.get(f"MLFLOW_TRACKING_{part}") or file.get(f"mlflow_tracking_{part.lower()}", "")
        for part in ("USERNAME", "PASSWORD")
    )
    if user and password:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    return f"Bearer {token}" if token else ""


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS") == "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
