"""Weights, gradients and the optimiser's state split over a team's processes: FSDP2 (Zhao et al. 2023, "PyTorch FSDP";
ZeRO stage 3, Rajbhandari et al. 2020). Each encoder is gathered while it works; the rest of the model is one more unit.

Checkpoints are whole: the first process writes what a run by one process would, so that a run may go on sharded, copied
or alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from fuseline.errors import FuselineError
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.checkpoint import trained_state, whole
from fuseline.lab.training.team import Team
from fuseline.recipe import TrainingSpec


def check_sharded(spec: TrainingSpec, team: Team, precision: str) -> None:
    """Raises FuselineError ``bad_team`` for what cannot be sharded."""
    if not team.sharded:
        return
    if team.size == 1:
        raise FuselineError("bad_team", "--strategy fsdp splits a model over several processes", "--workers 2 or more")
    if spec.mixup:
        raise FuselineError(
            "bad_team", "training.mixup mixes tokens between encoders and fusion: not while sharded", "--strategy ddp"
        )
    if precision == "float16":
        raise FuselineError("bad_team", "float16 scales gradients, which sharding does not", "bfloat16 or float32")


def sharded(model: FusionModel, team: Team) -> FusionModel:
    """A copy of which each process holds a part. `model` stays whole where it is, for what comes after training.

    An encoder in which nothing trains is not split: its tokens may be kept, and then it runs in some processes only.
    """
    model = copy.deepcopy(model)
    mesh = init_device_mesh(team.device.type, (team.size,))
    trains = [e for e in model.encoders if any(p.requires_grad for p in e.parameters())]
    still = {p for e in model.encoders for p in e.parameters() if e not in trains}
    for name in scalars_of(model):  # FSDP splits along a first dimension
        place, _, own = name.rpartition(".")
        scalar = model.get_parameter(name)
        if scalar not in still:
            given = nn.Parameter(scalar.detach().reshape(1), requires_grad=scalar.requires_grad)
            model.get_submodule(place).register_parameter(own, given)
    for unit in (*trains, model):
        # Before fully_shard: hooks run in their order, and this one needs the weights gathered.
        unit.register_forward_hook(_Reached(unit, [] if unit is not model else trains))
        fully_shard(unit, mesh=mesh, ignored_params=still)
    return model


def scalars_of(model: nn.Module) -> frozenset[str]:
    """Names of the parameters without a dimension: all are factors or summands, so that one dimension does no harm."""
    return frozenset(name for name, p in model.named_parameters() if p.ndim == 0)


class _Reached:
    """Adds nothing to an output, by way of every trained parameter, so that each has a gradient in every process.

    Processes exchange the gradients that they have: one whose rows lack an input would have fewer than the others.
    """

    def __init__(self, unit: nn.Module, below: list[nn.Module]) -> None:
        others = {name for name, part in unit.named_modules() if part in below}
        self.names = [
            name
            for name, p in unit.named_parameters()
            if p.requires_grad and p.numel() and not any(name.startswith(f"{other}.") for other in others)
        ]

    def __call__(self, unit: nn.Module, given: Any, output: Any) -> Any:
        if not self.names or not torch.is_grad_enabled():
            return output
        parameters = dict(unit.named_parameters())  # not those of before: they are gathered now
        nothing = torch.stack([parameters[name].reshape(-1)[0].float() for name in self.names]).sum() * 0.0
        if isinstance(output, Tokens):
            return output._replace(values_BTD=output.values_BTD + nothing.to(output.values_BTD.dtype))
        return {k: v + nothing.to(v.dtype) if v.is_floating_point() else v for k, v in output.items()}


def like(value: Tensor, part: Tensor) -> Tensor:
    """This process's part of a whole tensor, as `part` is one. What has another shape, as a count of steps, stays."""
    if not isinstance(part, DTensor) or isinstance(value, DTensor):
        return value
    value = value.reshape(1) if not value.ndim and part.shape == (1,) else value
    if value.shape != part.shape:
        return value
    return distribute_tensor(value.to(part.device), part.device_mesh, part.placements)


def same_buffers(model: nn.Module) -> None:
    """The first process's running statistics in all of them, as DDP has it."""
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


class ShardedStrategy(DDPStrategy):
    """Lightning's, for a model that is split already: nothing to wrap, and checkpoints that are whole."""

    def configure_ddp(self) -> None:
        pass  # fully_shard's hooks exchange the gradients

    def lightning_module_state_dict(self) -> dict[str, Any]:
        module = self.lightning_module
        state = trained_state(module.model, module.names, module.scalars)
        return {f"model.{name}": tensor for name, tensor in state.items()}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        own = self.lightning_module.state_dict()
        state = {name: like(value, own[name]) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        module, own = self.lightning_module, getattr(optimizer, "_optimizer", optimizer)
        scalars = {id(p) for name, p in module.model.named_parameters() if name in module.scalars}
        parameters, state = _parameters(own), own.state_dict()
        kept = {}
        for i in sorted(state["state"]):
            parts = {key: whole(v) if isinstance(v, Tensor) else v for key, v in state["state"][i].items()}
            if id(parameters[i]) in scalars:
                parts = {key: v.reshape(()) if isinstance(v, Tensor) else v for key, v in parts.items()}
            kept[i] = parts
        return {**state, "state": kept}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = _parameters(optimizer)
            parts = {
                i: {key: like(v, parameters[i]) if key != "step" else v for key, v in own.items()}
                for i, own in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": parts})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order of their numbers in its state."""
    return [p for group in optimizer.param_groups for p in group["params"]]
