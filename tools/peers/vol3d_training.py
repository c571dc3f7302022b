"""Time our training step as nnU-Net's is timed: JOB.json PRECISION, JSON on stdout.

The job says patch, batch, features, strides, classes, threads, steps, warm_up and device. A step is the trainer's, with
nnU-Net's network, loss (Dice and cross-entropy, deep supervision) and optimiser (SGD), and with the averaged
weights and the look for numbers that are not finite that nnU-Net's step does not have. The batch lies ready.
value is the network's number of parameters: fewer than nnU-Net's, as ours has no biases where a norm takes them out
again, and no head at the resolution whose loss nnU-Net weighs with zero.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from vol3d.config.tree import Config, DataSettings
from vol3d.network.build import NetworkSettings
from vol3d.network.unet import UNetSettings
from vol3d.shapes import Shape3, Spacing
from vol3d.tasks.assemble import loss_of, network_of
from vol3d.training.schedule import TrainingSettings
from vol3d.training.trainer import PatchBatch, Trainer
from vol3d.version import __version__

job, precision = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
device, steps = torch.device(job["device"]), job["warm_up"] + job["steps"]
strides = tuple(Shape3(*stride) for stride in job["strides"])
stages = UNetSettings(tuple(job["features"]), (Shape3(3, 3, 3),) * len(strides), strides)
settings = TrainingSettings(
    epochs=1, steps_per_epoch=steps, optimiser="sgd", learning_rate=1e-2, weight_decay=3e-5, schedule="poly"
)
config = Config(
    data=DataSettings(labels={f"class_{v}": (v,) for v in range(1, job["classes"])}, channels=("image",)),
    network=NetworkSettings("unet", job["features"][0], stages),
    training=settings,
)
size = (job["batch"], 1, *job["patch"])
batch = PatchBatch(
    torch.randn(size).to(device),
    torch.randint(0, job["classes"], size, dtype=torch.uint8).to(device),
    ("random",) * job["batch"],
)
came: list[float] = []


def batches(*_: object) -> Iterator[PatchBatch]:
    """The same one over and over, and when it was asked for."""
    while True:
        if device.type == "cuda":
            torch.cuda.synchronize()
        came.append(time.perf_counter())
        yield batch


network = network_of(config).to(device)
trainer = Trainer(
    network,
    loss_of(config, device, Spacing(1.0, 1.0, 1.0)),
    batches,
    settings=replace(settings, precision=precision),
    precision=precision,
    device=device,
    steady=config.loss.weights_at,
)
trainer.run(validate=None, on_event=lambda event: None)
came.append(time.perf_counter())
seconds = [end - start for start, end in pairwise(came)][job["warm_up"] :]
parameters = sum(p.numel() for p in network.parameters())
print(json.dumps({"seconds": seconds, "value": parameters, "version": f"{__version__} ({precision})"}))
