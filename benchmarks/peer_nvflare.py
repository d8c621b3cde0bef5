"""W1 in NVFlare's simulator, in an environment of its own: `python -m benchmarks.peer_nvflare JOB ROUNDS`.

Started again by the simulator, with `client` as first word, it is the training script of a client.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.bare import evaluate, module, read_job, train
from benchmarks.processes import watching

NOTE = "10 clients in processes of their own; seconds from the second round on, CPU of all processes"
CRITERION = nn.BCEWithLogitsLoss()


class Net(nn.Sequential):
    """The perceptron, which the simulator makes from the name of this class and the file of the job."""

    def __init__(self, path: str) -> None:
        super().__init__(*module(read_job(Path(path)).start))


def client(path: Path, marks: Path) -> None:
    """Answer rounds until the simulator ends: score the incoming model, train it; note when each round came."""
    import nvflare.client as flare

    torch.set_num_threads(1)
    flare.init()
    job = read_job(path)
    names = sorted(job.x)
    number = int(flare.get_site_name().rpartition("-")[2]) - 1
    site = names[number]
    x, y, net = torch.from_numpy(job.x[site]), torch.from_numpy(job.y[site]), module(job.start)
    while flare.is_running():
        incoming = flare.receive()
        if incoming is None:
            break
        net.load_state_dict({name: torch.as_tensor(value) for name, value in incoming.params.items()})
        loss = evaluate(net, CRITERION, {site: x}, {site: y}, [site])[site]
        with (marks / site).open("a") as file:
            file.write(json.dumps({"at": time.time(), "loss": loss}) + "\n")
        train(net, CRITERION, x, y, job.order(site, int(incoming.current_round or 0)), job)
        params = {name: value.cpu() for name, value in net.state_dict().items()}
        flare.send(
            flare.FLModel(
                params=params, metrics={"loss": loss}, meta={"NUM_STEPS_CURRENT_ROUND": -(-len(y) // job.batch)}
            )
        )


def simulate(path: Path, rounds: int) -> dict[str, object]:
    """Return the time of each round after the first, and the loss of the last incoming model."""
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe import SimEnv

    job = read_job(path)
    with tempfile.TemporaryDirectory() as folder, watching(os.getpid()) as watched:
        marks = Path(folder) / "marks"
        marks.mkdir()
        recipe = FedAvgRecipe(
            name="w1",
            model={"class_path": "benchmarks.peer_nvflare.Net", "args": {"path": str(path)}},
            min_clients=len(job.x),
            num_rounds=rounds,
            train_script=__file__,
            train_args=f"client {path} {marks}",
        )
        began = time.time()
        env = SimEnv(num_clients=len(job.x), num_threads=len(job.x), workspace_root=folder)
        recipe.execute(env)
        seen = [[json.loads(line) for line in file.read_text().splitlines()] for file in sorted(marks.iterdir())]
    starts = [min(site[number]["at"] for site in seen) for number in range(rounds)]
    return {
        "wall-seconds": starts[-1] - starts[0],
        "cpu-seconds": watched.cpu_between(starts[0], starts[-1]),
        "start-up-seconds": starts[0] - began,
        "peak-mb": round(watched.peak_mb(), 1),
        "loss": sum(site[-1]["loss"] for site in seen) / len(seen),
        "rounds": rounds - 1,
        "note": NOTE,
    }


def main() -> None:
    """Print what NVFlare took, or be one of its clients."""
    if sys.argv[1] == "client":
        client(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    logging.disable(logging.CRITICAL)
    print(json.dumps(simulate(Path(sys.argv[1]), int(sys.argv[2]))))


if __name__ == "__main__":
    main()
