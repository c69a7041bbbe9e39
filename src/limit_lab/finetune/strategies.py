"""How a fine-tuning is spread over devices: one alone, DDP, or DeepSpeed's ZeRO stages (Rajbhandari et al. 2020).

DDP holds float32 weights on every device. ZeRO holds weights and gradients in the compute dtype with float32 masters and
moments; stage 1 divides these among the devices, stage 2 the gradients too, stage 3 the weights too. Frozen weights have no
master. Buffers (ALiBi slopes, rotary frequencies) and the weights of the loss stay in float32 under either.
"""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.plugins import DeepSpeedPrecision
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor

from limit_lab.config import Finetune, Hardware
from limit_lab.durations import documents
from limit_lab.hardware import LIVE_BUCKETS

#: Ranks that wait longer for one another are stuck: another one died without a word.
PATIENCE = timedelta(minutes=30)


def strategy_of(hardware: Hardware, recipe: Finetune, *, any_ranks: bool) -> Strategy | str:
    """Lightning's strategy for ``hardware.strategy``; ``auto`` for a single device.

    ``any_ranks`` says that the checkpoint it continues from was converted for any number of ranks.
    """
    if hardware.strategy == "single":
        return "auto"
    if hardware.strategy == "ddp":
        return DDPStrategy(timeout=PATIENCE)
    return Zero(hardware, recipe, any_ranks=any_ranks)


def alone(strategy: Strategy) -> bool:
    """Whether this process does all the work: it is no rank that another process waits for."""
    return isinstance(strategy, SingleDeviceStrategy)


def rank() -> int:
    """This process's place among the ranks that torchrun started; 0 alone."""
    return int(os.environ.get("RANK", "0"))


class Untouched(DeepSpeedPrecision):
    """DeepSpeed's precision, but batches keep their dtype: rounding the loss's weights to bfloat16 would change the loss."""

    def convert_input(self, data: Any) -> Any:
        return data


class Zero(DeepSpeedStrategy):
    """DeepSpeed ZeRO, on CPUs too, with every size stated and no extension compiled."""

    def __init__(self, hardware: Hardware, recipe: Finetune, *, any_ranks: bool) -> None:
        quiet_deepspeed()
        self.hardware_stage = hardware.zero_stage
        super().__init__(
            config=zero_config(hardware) | ({"checkpoint": {"load_universal": True}} if any_ranks else {}),
            precision_plugin=Untouched("bf16-true" if recipe.precision == "bf16" else "32-true"),
            timeout=PATIENCE,
            logging_level=logging.ERROR,
        )

    @property
    def root_device(self) -> torch.device:
        # Lightning passes its index on, and a CPU has none
        device: torch.device = super().root_device
        return device if device.type == "cuda" else torch.device("cpu", self.local_rank)

    def setup_environment(self) -> None:
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_environment()
            return
        assert self.accelerator is not None
        self.accelerator.setup_device(self.root_device)
        self.setup_distributed()

    def setup_distributed(self) -> None:
        if isinstance(self.accelerator, CUDAAccelerator):
            super().setup_distributed()
            return
        self.set_world_ranks()
        self._init_deepspeed_distributed()

    def setup(self, trainer: pl.Trainer) -> None:
        """Both Lightning and DeepSpeed cast every buffer with the weights; those of ``trainer`` get their values back."""
        assert self.lightning_module is not None
        kept = [
            (module, name, value.clone())
            for module in self.lightning_module.modules()
            for name, value in module._buffers.items()
            if value is not None and value.is_floating_point()
        ]
        super().setup(trainer)
        for module, name, value in kept:
            current = module._buffers[name]
            assert current is not None
            module._buffers[name] = value.to(current.device)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Every group of weights gets its own count of steps: of a universal checkpoint DeepSpeed gives all the same tensor."""
        found: dict[str, Any] = super().load_checkpoint(checkpoint_path, weights_only)
        for state in self.deepspeed_engine.optimizer.optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].clone()
        return found


def parts(hardware: Hardware, accumulation: int) -> int:
    """By what the loss of a micro-batch is divided on its way: Lightning takes a mean over the accumulated ones and the ranks
    over one another, and DeepSpeed divides by the accumulated ones once more."""
    return accumulation * hardware.ranks * (accumulation if hardware.zero_stage else 1)


def stage_of(strategy: Strategy) -> int:
    """ZeRO's stage of a running strategy, 0 without it."""
    return strategy.hardware_stage if isinstance(strategy, Zero) else 0


def zero_config(hardware: Hardware) -> dict[str, Any]:
    """DeepSpeed's configuration; precision and clipping are Lightning's to add."""
    bucket = hardware.bucket_elements
    zero: dict[str, Any] = {
        "stage": hardware.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": hardware.accelerator == "gpu",  # needs streams
        "reduce_scatter": True,
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "sub_group_size": hardware.sub_group_elements,
    }
    if zero["stage"] == 3:
        zero |= {
            "stage3_prefetch_bucket_size": bucket,
            "stage3_max_live_parameters": LIVE_BUCKETS * bucket,
            "stage3_max_reuse_distance": LIVE_BUCKETS * bucket,
            "stage3_param_persistence_threshold": 100_000,  # norms stay whole
        }
    if hardware.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": hardware.accelerator == "gpu"}
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's own, which needs no compiler
        "train_micro_batch_size_per_gpu": documents(hardware.micro_batch, name="hardware.micro_batch"),
    }


def quiet_deepspeed() -> None:
    """Import DeepSpeed without its advertisements and without the shared-memory extension.

    Compiling that takes minutes, and an interrupted build hangs every later run (https://github.com/pytorch/pytorch/issues/189245).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed
    # of torch 2.13, about the names that DeepSpeed 0.19 calls
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logging.logger.setLevel(logging.ERROR)


def gradient_norm(trainer: pl.Trainer, module: pl.LightningModule) -> float:
    """Norm of the step's gradient over all ranks; under ZeRO it is known after the step only."""
    if isinstance(trainer.strategy, Zero):
        return float(trainer.strategy.deepspeed_engine.get_global_grad_norm() or 0.0)
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def total(trainer: pl.Trainer, value: Tensor) -> float:
    """Sum of a scalar over the ranks."""
    device = trainer.strategy.root_device
    return float(trainer.strategy.reduce(value.to(device), reduce_op="sum"))
