"""Qwen3 mixture of experts (Yang et al. 2025) as `Qwen3MoeForCausalLM`: QK-norm, softmax top-k experts, no shared expert."""
