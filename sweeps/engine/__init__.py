"""What every sweep is run by: the truth between Ray Tune, Optuna and MLflow."""
