"""Time nnU-Net's training step: JOB.json PRECISION, JSON on stdout; see vol3d_training.py.

It is nnU-Net's own trainer, as shipped: initialize() makes its network, optimiser (SGD) and loss from a plan of the
hippocampus' form, and train_step() learns from random tensors that lie ready, so that no data set is needed and no
loading or augmentation is timed. Only the look at a preprocessed data set is left out. On a CPU nnU-Net knows
float32 alone; PRECISION is not used. value is the network's number of parameters.
"""

import json
import os
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

folder = tempfile.mkdtemp()
for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ[name] = folder

import torch  # noqa: E402
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as code  # noqa: E402, N813

warnings.filterwarnings("ignore")
code.infer_dataset_class = lambda _: None
job = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(job["threads"])
torch.manual_seed(0)
stages = len(job["features"])
names = [f"class_{value}" for value in range(1, job["classes"])]
configuration = {
    "data_identifier": "none",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": job["batch"],
    "patch_size": job["patch"],
    "spacing": [1.0, 1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "batch_dice": False,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": job["features"],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": job["strides"],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
trainer = code.nnUNetTrainer(
    plans={
        "dataset_name": "Dataset000_None",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "continue_training": False,
        "configurations": {"3d_fullres": configuration},
    },
    configuration="3d_fullres",
    fold=0,
    dataset_json={
        "channel_names": {"0": "image"},
        "labels": {"background": 0, **{name: value for value, name in enumerate(names, 1)}},
        "file_ending": ".nii.gz",
    },
    device=torch.device(job["device"]),
)
trainer.initialize()
trainer.network.train()
device = trainer.device
labels = torch.randint(0, job["classes"], (job["batch"], 1, *job["patch"])).float()
scales = [tuple(scale) for scale in trainer._get_deep_supervision_scales()]
targets = [torch.nn.functional.interpolate(labels, scale_factor=scale) for scale in scales]
batch = {"data": torch.randn(job["batch"], 1, *job["patch"]), "target": targets}
batch = {"data": batch["data"].to(device), "target": [target.to(device) for target in targets]}
seconds = []
for step in range(job["warm_up"] + job["steps"]):
    start = time.perf_counter()
    trainer.train_step(batch)  # its loss comes back to the CPU, so that a GPU has done its work
    seconds += [time.perf_counter() - start] if step >= job["warm_up"] else []
parameters = sum(p.numel() for p in trainer.network.parameters())
print(json.dumps({"seconds": seconds, "value": parameters, "version": version("nnunetv2")}))
