"""MLflow's own UI, on the right store, at the address that shows a sweep sorted by validation."""

import sys
from collections.abc import Callable
from urllib.parse import quote

from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from cluster.processes import end_tree, start_tree
from sweeps.engine.mlflow_lookup import find_sweep_run
from sweeps.engine.mlflow_store import open_client

HOST = "127.0.0.1"


def serve(tracking_uri: str, sweep: str | None, *, port: int, show: Callable[[str], None]) -> None:
    """Run the UI until it is interrupted, or only name the address when a server runs already.

    Raises ValueError when the store does not know the sweep.
    """
    path = sorted_path(tracking_uri, sweep)
    if tracking_uri.startswith(("http://", "https://")):
        show(f"{tracking_uri.rstrip('/')}/{path}")
        return
    show(f"http://{HOST}:{port}/{path}")
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1"]
    command += ["--backend-store-uri", tracking_uri, "--host", HOST, "--port", str(port)]
    process = start_tree(command)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        return
    finally:
        end_tree(process)
    if status:
        raise ValueError(f"port={port}; must be one that is free: MLflow's UI ended by itself")


def sorted_path(tracking_uri: str, sweep: str | None) -> str:
    """Return the UI's path for a sweep, the one that ran last without a name."""
    with open_client(tracking_uri) as client:
        run = find_sweep_run(client, sweep)
    children = quote(f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run.info.run_id}'")
    order = "orderByKey=" + quote("metrics.`value`") + "&orderByAsc=true"
    return f"#/experiments/{run.info.experiment_id}/runs?searchFilter={children}&{order}"
