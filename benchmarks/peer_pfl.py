"""W1 in Apple's pfl, run by the Python of an environment of its own: `python -m benchmarks.peer_pfl JOB ROUNDS`."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn

from benchmarks.alone import peak_mb
from benchmarks.bare import Job, evaluate, module, read_job

NOTE = "batches in the given order; scores each site before and after its training, and once more as validation"
CRITERION = nn.BCEWithLogitsLoss()


class Net(nn.Module):
    """The perceptron, with the two functions that pfl asks of a module."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.layers = module(job.start)

    def loss(self, x, y, eval=False):
        """Return the mean loss."""
        return CRITERION(self.layers(x).squeeze(-1), y)

    @torch.no_grad()
    def metrics(self, x, y, eval=False):
        """Return the loss, weighted by rows."""
        return {"loss": Weighted(self.loss(x, y).item() * len(y), len(y))}


def run(job: Job) -> dict[str, object]:
    """Return the time of the rounds, and the loss after the last one."""
    names = sorted(job.x)

    def dataset(name):
        return Dataset(raw_data=[torch.from_numpy(job.x[name]), torch.from_numpy(job.y[name])], user_id=name)

    held = {name: dataset(name) for name in names}
    federated = [FederatedDataset(held.__getitem__, get_user_sampler("minimize_reuse", names)) for _ in range(2)]
    net = Net(job)
    model = PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), lr=1.0))
    given = {
        "algorithm_params": NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=1,
            train_cohort_size=len(names),
            val_cohort_size=len(names),
        ),
        "backend": SimulatedBackend(training_data=federated[0], val_data=federated[1]),
        "model": model,
        "model_train_params": NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=job.lr, local_batch_size=job.batch
        ),
        "model_eval_params": NNEvalHyperParams(local_batch_size=None),
    }
    cpu, wall = time.process_time(), time.perf_counter()
    FederatedAveraging().run(**given)
    took = {"cpu-seconds": time.process_time() - cpu, "wall-seconds": time.perf_counter() - wall}
    x = {name: torch.from_numpy(rows) for name, rows in job.x.items()}
    y = {name: torch.from_numpy(rows) for name, rows in job.y.items()}
    loss = float(np.mean(list(evaluate(net.layers, CRITERION, x, y, names).values())))
    return took | {"loss": loss, "rounds": job.rounds, "peak-mb": peak_mb(), "note": NOTE}


def main() -> None:
    """Print what pfl took."""
    from dataclasses import replace

    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    job = read_job(Path(sys.argv[1]))
    run(replace(job, rounds=1))
    print(json.dumps(run(replace(job, rounds=int(sys.argv[2])))))


if __name__ == "__main__":
    main()
