"""The environment variables that this project sets for itself, before Ray or MLflow is imported.

Only defaults: what the user has set already stays.
"""

import os

# Each name and value was read in the source of ray 2.60 and mlflow 3.17.
QUIET: dict[str, str] = {
    # Ray would send statistics every hour, and ask about it on a terminal.
    "RAY_USAGE_STATS_ENABLED": "0",
    # MLflow would send an event for many calls, from its UI too.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's UI would start seven processes to run jobs that nobody gives it.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # The background writer tries again by itself; MLflow would for minutes, at every single write.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # The convention for everything else; MLflow knows no value for it but "true".
    "DO_NOT_TRACK": "true",
    # Two lines about tables in a new database.
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # Two lines for each trial that ends, against a server, in the middle of the live table.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Two bars for each file that goes into a model.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A model would get a copy of whatever uv project the working directory belongs to.
    "MLFLOW_UV_AUTO_DETECT": "false",
}

TUNE: dict[str, str] = {
    # Three files a trial (CSV, JSON, TensorBoard), written by the driver in its one loop.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial whose thread needs over 2 s to end would make the next trial on its actor fail.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # A row without the metric is a trial's last word (diverged, out of memory), not an error.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Tune would replace the handler with which a sweep stops its trials and writes checkpoints.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A sweep goes on from its study. Tune's own copies of its state, taken while it changes, end in
    # a traceback now and then.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # Tune's newer console output prints a box for every sweep, however silent it is told to be.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Of a worker's death a sweep tells in a line. Tune repeats all that Ray says, which has command
    # lines of others' processes in it when memory ran out.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Tune would warn of every 0.5 s, in the middle of the live table. A database that is away is
    # waited for, and told of in a line.
    "TUNE_WARN_THRESHOLD_S": "10",
    # Trials would run in folders of Tune's, where a relative path of the user's means nothing.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

REPEATABLE: dict[str, str] = {
    # cuBLAS repeats to the last bit only with a workspace of its own (CUDA's documentation).
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

DEFAULTS = QUIET | TUNE | REPEATABLE


def apply() -> None:
    """Set the defaults; call it before anything imports ray, mlflow or torch."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
