"""Weights of axk2 checkpoints, both ways: those of deepseek_v32; what the gates change is in `hosts.latent`."""

from hagane.hosts.deepseek_v32.weights import weights_from_host, weights_to_host

__all__ = ["weights_from_host", "weights_to_host"]
