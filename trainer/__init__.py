"""How one model trains: knows audio and torch, has never heard of Ray, Optuna or MLflow."""
