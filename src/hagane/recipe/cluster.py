"""What a recipe may say of a cluster: degrees of a layout that must be kept, and how a published size was trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hagane.recipe.role import execution
from hagane.recipe.types import Frozen


class LayoutSettings(Frozen):
    """What the layout of a plan on a cluster (`--machine`) must keep; what is left out is searched."""

    data: int | None = execution(None, ge=1, description="replicas, each with rows of its own")
    zero: Literal[0, 1, 2, 3] | None = execution(None, description="ZeRO stage: 1 shards the optimizer's states, 2 gradients too, 3 weights too")
    tensor: int | None = execution(None, ge=1, description="devices that share every matrix")
    pipeline: int | None = execution(None, ge=1, description="stages that the layers are divided into")
    interleave: int | None = execution(None, ge=1, description="stages that one device of a pipeline holds")
    context: int | None = execution(None, ge=1, description="devices that share a row")
    expert: int | None = execution(None, ge=1, description="devices that share one copy of the experts")
    micro_batch: int | None = execution(None, ge=1, description="rows of one micro-batch of a replica")
    checkpointing: Literal["none", "selective", "full"] | None = execution(None, description="activations that are made again in the backward pass")
    precision: Literal["float32", "tf32", "bf16", "fp8", "fp4"] | None = execution(None, description="of matrix products; that of train.dtype where not given")


class PublishedSettings(Frozen):
    """How its makers trained the size that the recipe gives: what is planned where neither a budget nor a machine is asked for."""

    machine: str | None = execution(None, description="number and kind of accelerators, from the table: 1024xH200")
    layout: LayoutSettings = execution(LayoutSettings(), description="what is known of the layout; execution.layout goes before it")
    batch_tokens: int | None = Field(None, ge=1, description="of an optimizer step; a budget that changes the size changes the batch, too")
