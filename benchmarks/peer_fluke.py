"""W1 in fluke-fl, run by the Python of an environment of its own: `python -m benchmarks.peer_fluke JOB ROUNDS`."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import sys
import time
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import nn

from benchmarks.alone import peak_mb
from benchmarks.bare import Job, evaluate, module, read_job

NOTE = "scores the global model once a round at the server, on all sites' rows: the loss only, as the bare loop"


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision where it does not go with the torch that is here; only image models need it."""

    def find_spec(self, name, path=None, target=None):
        """Return an empty module for torchvision and its parts."""
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """Return a module that has every name."""
        made = MagicMock(__spec__=spec, __path__=[])
        made.__name__ = spec.name
        return made

    def exec_module(self, module):
        """Run nothing."""


def has_torchvision() -> bool:
    """Return whether torchvision can be imported."""
    try:
        import torchvision  # noqa: F401 - only whether it goes
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False
    return True


class Loss(nn.BCEWithLogitsLoss):
    """The loss of one output a row."""

    def forward(self, z, y):
        """Return the mean loss."""
        return super().forward(z.squeeze(-1), y)


def run(job: Job) -> dict[str, object]:
    """Return the time of the rounds, and the loss after the last one."""
    from fluke import DDict, FlukeENV
    from fluke.algorithms.fedavg import FedAVG
    from fluke.data import DataSplitter, DummyDataContainer, FastDataLoader
    from fluke.evaluation import Evaluator

    class LossOnly(Evaluator):
        """Scores as the bare loop does."""

        def evaluate(self, round, model, eval_data_loader, loss_fn=None, additional_metrics=None, device="cpu"):
            """Return the mean loss over the loader's rows."""
            with torch.inference_mode():
                parts = [(len(y), Loss()(model(x), y).item()) for x, y in eval_data_loader]
            return {"loss": sum(n * loss for n, loss in parts) / sum(n for n, _ in parts)}

    names = sorted(job.x)
    x = {name: torch.from_numpy(job.x[name]) for name in names}
    y = {name: torch.from_numpy(job.y[name]) for name in names}

    def loader(rows, targets, batch):
        return FastDataLoader(rows, targets, num_labels=2, batch_size=batch, shuffle=batch == job.batch)

    server = loader(torch.cat([*x.values()]), torch.cat([*y.values()]), len(names) * max(map(len, y.values())))
    FlukeENV().set_seed(1)
    FlukeENV().set_evaluator(LossOnly(eval_every=1))
    FlukeENV().set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=True)
    held = DummyDataContainer([loader(x[n], y[n], job.batch) for n in names], [None] * len(names), server, 2)
    client = {
        "batch_size": job.batch,
        "local_epochs": 1,
        "loss": Loss,
        "optimizer": {"name": "SGD", "lr": job.lr},
        "scheduler": {"name": "StepLR", "step_size": 1, "gamma": 1},
    }
    params = DDict(client=client, server={"weighted": True}, model=module(job.start))
    algorithm = FedAVG(len(names), DataSplitter(held), params)
    cpu, wall = time.process_time(), time.perf_counter()
    algorithm.run(job.rounds, 1.0)
    took = {"cpu-seconds": time.process_time() - cpu, "wall-seconds": time.perf_counter() - wall}
    loss = float(np.mean(list(evaluate(algorithm.server.model, nn.BCEWithLogitsLoss(), x, y, names).values())))
    FlukeENV().close_cache()
    return took | {"loss": loss, "rounds": job.rounds, "peak-mb": peak_mb()}


def main() -> None:
    """Print what fluke took."""
    from dataclasses import replace

    note = NOTE
    if not has_torchvision():
        sys.meta_path.insert(0, Absent())
        note += "; torchvision, which does not go with this torch, is a stand-in"
    torch.set_num_threads(1)
    job = read_job(Path(sys.argv[1]))
    run(replace(job, rounds=1))
    print(json.dumps(run(replace(job, rounds=int(sys.argv[2]))) | {"note": note}))


if __name__ == "__main__":
    main()
