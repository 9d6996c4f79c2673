"""The footprint of further kinds of layer against torch's own accounting: latent attention, multi-token prediction, Gated DeltaNet.

Latent attention and the modules for further tokens are simulated as in test_tracked_ranks, on one rank that holds everything; what the recurrent mixer
keeps is read off our own, compiled.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.checkpoint import checkpoint

from fused import Embedded, Head, Keeps, Products, Summed, weight
from hagane.model.config import AttentionConfig, DeltaConfig, DenseConfig, LatentConfig, LayerConfig, ModelConfig
from hagane.model.count import mixer_counts
from hagane.model.delta import Delta
from hagane.model.sequence import View
from hagane.plan.footprint import footprint
from hagane.plan.machines import cluster
from hagane.plan.workload import workload
from hagane.recipe.types import Layout

CONTEXT, ROWS = 4096, 4
LATENT = LatentConfig(num_heads=32, query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
PLAIN = AttentionConfig(num_heads=32, num_kv_heads=8, head_dim=128, qk_norm=False)


def config_of(mixer, hidden, mtp=0):
    layer = LayerConfig(mixer=mixer, ffn=DenseConfig(hidden=hidden))
    return ModelConfig(vocabulary_size=32000, width=4096, layers=(layer,) * 4, mtp_layers=(layer,) * mtp, context=CONTEXT)


class Heads(Function):
    """Keys and values of every head from their latent form and the shared rotated part: copies, nothing kept."""

    @staticmethod
    def forward(ctx, made: Tensor, latent: Tensor, widths: tuple[int, int]):
        ctx.shapes = made.shape, latent.shape
        return tuple(made.new_empty(len(made), width) for width in widths)

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        return (*(gradients[0].new_empty(shape) for shape in ctx.shapes), None)


class Latent(nn.Module):
    """Down, norm and up for queries, and for keys and values."""

    def __init__(self, width: int, mixer: LatentConfig) -> None:
        super().__init__()
        query, value = mixer.num_heads * mixer.qk_dim, mixer.num_heads * mixer.value_dim
        self.down = nn.ParameterList([weight(mixer.query_rank, width), weight(mixer.kv_rank + mixer.rope_dim, width)])
        self.norms = nn.ParameterList([weight(mixer.query_rank), weight(mixer.kv_rank + mixer.rope_dim)])
        self.up = nn.ParameterList([weight(query, mixer.query_rank), weight(mixer.num_heads * (mixer.nope_dim + mixer.value_dim), mixer.kv_rank)])
        self.output, self.widths, self.rank = weight(width, value), (query, value), mixer.kv_rank

    def latents(self, stream: Tensor, norm: Tensor):
        return Products.apply(1, Keeps.apply(1, stream, norm), *self.down)

    def project(self, query: Tensor, latent: Tensor):
        (queries,) = Products.apply(1, Keeps.apply(1, query, self.norms[0]), self.up[0])
        normed = Keeps.apply(1, latent, self.norms[1])
        (made,) = Products.apply(1, normed[:, : self.rank], self.up[1])
        return queries, *Heads.apply(made, latent, self.widths)


class Attended(Function):
    """Fused attention of which `width` values come out: keeps its inputs, its output and a number per head and token."""

    @staticmethod
    def forward(ctx, heads: int, width: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = q.new_empty(len(q), width)
        ctx.save_for_backward(q, k, v, output, q.new_empty(len(q) * heads, dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return (None, None, *(torch.empty_like(part) for part in ctx.saved_tensors[:3]))


class Block(nn.Module):
    def __init__(self, width: int, layer: LayerConfig, mode: str) -> None:
        super().__init__()
        self.latent = Latent(width, layer.mixer) if isinstance(layer.mixer, LatentConfig) else None
        self.heads, self.mode, hidden = layer.mixer.num_heads, mode, layer.ffn.hidden
        self.norms = nn.ParameterList(weight(width) for _ in range(2))
        self.dense = nn.ParameterList([weight(hidden, width), weight(hidden, width), weight(width, hidden)])
        if self.latent is None:
            counts = mixer_counts(width, layer.mixer)
            self.qkv = nn.ParameterList(weight(rows, width) for rows in (counts.query, counts.key_value // 2, counts.key_value // 2))
            self.output = weight(width, counts.query)

    def again(self, made, *inputs: Tensor):
        return checkpoint(made, *inputs, use_reentrant=False) if self.mode == "selective" else made(*inputs)

    def attend(self, stream: Tensor) -> Tensor:
        if self.latent is not None:
            latents = self.again(lambda rows: self.latent.latents(rows, self.norms[0]), stream)
            value = self.latent.output.shape[1]
            mixed = self.again(lambda *both: Attended.apply(self.heads, value, *self.latent.project(*both)), *latents)
            return Summed.apply(1, mixed, self.latent.output)
        q, k, v = self.again(lambda rows: Products.apply(1, Keeps.apply(1, rows, self.norms[0]), *self.qkv), stream)
        return Summed.apply(1, Attended.apply(self.heads, q.shape[1], q, k, v), self.output)

    def forward(self, stream: Tensor) -> Tensor:
        stream = stream + self.attend(stream)
        gate, up, down = self.dense
        made = self.again(lambda rows: Products.apply(1, Keeps.apply(1, rows, self.norms[1]), gate, up), stream)
        return stream + self.again(lambda *parts: Summed.apply(1, Keeps.apply(1, *parts), down), *made)


class Model(nn.Module):
    def __init__(self, config: ModelConfig, mode: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(config.width, layer, mode) for layer in config.layers)
        self.further = nn.ModuleList(Block(config.width, layer, mode) for layer in config.mtp_layers)
        self.joins = nn.ParameterList(weight(config.width, 2 * config.width) for _ in config.mtp_layers)
        self.norms = nn.ParameterList(weight(config.width) for _ in range(2 * len(config.mtp_layers)))
        self.embedding, self.head = weight(config.vocabulary_size, config.width), weight(config.vocabulary_size, config.width)
        self.mode = mode

    def layer(self, block: nn.Module, stream: Tensor) -> Tensor:
        return checkpoint(block.forward, stream, use_reentrant=False) if self.mode == "full" else block.forward(stream)

    def run(self, token_N: Tensor) -> Tensor:
        stream = Embedded.apply(self.embedding, token_N)
        for block in self.blocks:
            stream = self.layer(block, stream)
        loss = Head.apply(1, stream, self.head)
        for index, block in enumerate(self.further):
            following = Embedded.apply(self.embedding, token_N)
            both = torch.cat([Keeps.apply(1, stream, self.norms[2 * index]), Keeps.apply(1, following, self.norms[2 * index + 1])], dim=1)
            (stream,) = Products.apply(1, both, self.joins[index])
            stream = self.layer(block, stream)
            loss = loss + Head.apply(1, stream, self.head)
        return loss


def tracked(config: ModelConfig, mode: str) -> float:
    """Bytes at the peak of a step on one rank that holds weights, gradients and states."""
    with FakeTensorMode():
        model = Model(config, mode)
        held = torch.empty(4, sum(parameter.numel() for parameter in model.parameters()), dtype=torch.float32)
        tracker = MemTracker()
        tracker.track_external(model, held)
        with tracker:
            model.run(torch.zeros(ROWS * CONTEXT, dtype=torch.long)).backward()
        return float(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


KINDS = {"latent": config_of(LATENT, 4096), "latent, wide feed-forward": config_of(LATENT, 12288), "further tokens": config_of(PLAIN, 12288, mtp=1)}
FAST = {("latent", "none"), ("further tokens", "none")}
CASES = [pytest.param(name, mode, marks=() if (name, mode) in FAST else pytest.mark.slow) for name in KINDS for mode in ("none", "selective", "full")]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_kind_of_layer_holds_what_the_footprint_says(name, mode):
    layout = Layout(micro_batch=ROWS, checkpointing=mode)
    found = footprint(workload(KINDS[name], CONTEXT), layout, cluster("1xH100"), 1)
    assert found.total - found.allowance == pytest.approx(tracked(KINDS[name], mode), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("head", [32, 64, 128])
def test_a_compiled_recurrent_mixer_keeps_what_is_counted(head):
    """Of Gated DeltaNet alone, its input included."""
    width, rows, context = 256, 2, 512
    mixer = DeltaConfig(num_key_heads=4, num_value_heads=8, key_dim=head, value_dim=head)
    module = Delta(width, mixer, 1e-6).to(torch.bfloat16)
    own, seen = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}, {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    view = View(None, None, torch.ones(rows, context), torch.zeros(rows, context, dtype=torch.int32), None)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.compile(module)(torch.randn(rows, context, width, dtype=torch.bfloat16, requires_grad=True), view)
    counts = mixer_counts(width, mixer)
    counted = 2 * (width + counts.query + counts.key_value + counts.mixed + 2 * counts.mixed / 128 + counts.kept)
    assert counted == pytest.approx(sum(size for size, _ in seen.values()) / (rows * context), rel=0.05)
