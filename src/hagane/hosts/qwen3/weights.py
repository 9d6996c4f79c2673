"""Weights of qwen3 checkpoints, both ways: those of llama, with the norms of queries and keys that the mixer brings along."""

from hagane.hosts.llama.weights import weights_from_host, weights_to_host

__all__ = ["weights_from_host", "weights_to_host"]
