"""How far a sweep's driver goes: simulated trials of a fake trainer through all its real parts.

    export PYTHONPATH=$PWD/tests/support
    python tests/benchmarks/scale.py             # study and MLflow in SQLite, without Ray
    python tests/benchmarks/scale.py --servers   # both over PostgreSQL, MLflow on its server
    python tests/benchmarks/scale.py --ray       # Ray Tune's own controller, an actor a worker

Trials are of the log's size: so many reports up to step 10,000, stopped by ASHA as always. Without
Ray, a loop calls the driver as Tune would, with a trial open for each worker, as fast as the driver
answers: milliseconds are what each part costs the driver's one thread, MLflow's writer at work
beside it. `cpu` is that thread's processor time; the rest is waiting, for a database or the writer.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

import cluster.environment
from cluster.local import LocalHead

LOG_STEPS = 10_000
CLIENT = ("AWS_", "PGPASSFILE", "MLFLOW_", "HOME")


def main():
    """Print the table of what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--reports", type=int, default=20, help="of a trial that is not stopped")
    parser.add_argument("--step-s", type=float, default=0.0, help="seconds a step, with --ray")
    parser.add_argument("--study-storage", metavar="URL", help="elsewhere, such as a memory disk")
    parser.add_argument("--without-mlflow", action="store_true", help="its writer gets nothing")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--servers", action="store_true")
    kind.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        cluster.environment.apply()
        if given.ray:
            head = stack.enter_context(LocalHead(num_cpus=given.workers))
            os.environ.update(head.client_environment)
        # These read those variables.
        from measured_sweep import measure_alone, measure_ray
        from tests_support.simulated_sweep import simulated_setting

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {"study_storage": given.study_storage}
        if given.servers:
            stores = use_stores(stack, folder / "stores")
        (folder / "root").mkdir()
        setting = simulated_setting(
            folder / "root",
            trials=given.trials,
            workers=given.workers,
            settings=(f"report_every={LOG_STEPS // given.reports}",),
            **stores,
        )
        measure = measure_ray if given.ray else measure_alone
        measure(setting, given)


def use_stores(stack, folder):
    """Serve PostgreSQL, an object store and MLflow, and become their client."""
    from tests_support.stores import serve_stores

    folder.mkdir()
    stores = stack.enter_context(serve_stores(folder))
    os.environ.update({n: v for n, v in stores.env.items() if n.startswith(CLIENT)})
    return {"study_storage": stores.study_url, "tracking_uri": stores.mlflow}


if __name__ == "__main__":
    main()
