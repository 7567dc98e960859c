"""What a published model runs: MLflow copies this file into it and executes it when it is loaded.

In the model lie a copy of `trainer/`, put first on sys.path, and the folder that
`trainer.trained` reads. Nothing of unshift imports this file.
"""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from trainer.trained import read_trained, restore_clips


class Restorer(PythonModel):
    """A trained net on clips [clip, sample] of any length, 44.1 kHz mono.

    Runs on the CPU unless loaded with `model_config={"device": "cuda"}`.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the net."""
        self._device = torch.device(context.model_config["device"])
        folder = Path(context.artifacts["weights"]).parent
        self._net = read_trained(folder).load(self._device)

    # MLflow reads the annotation of the input: it knows just this one for arrays.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: Any = None
    ) -> np.ndarray:
        """Return the clips restored, in the shape they came in."""
        clips = torch.tensor(model_input, dtype=torch.float32, device=self._device)
        return restore_clips(self._net, clips).cpu().numpy()


mlflow.models.set_model(Restorer())
