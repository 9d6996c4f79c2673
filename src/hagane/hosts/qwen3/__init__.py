"""Qwen3 dense (Yang et al. 2025) as `Qwen3ForCausalLM`: QK-norm in every layer, optionally windows in some."""
