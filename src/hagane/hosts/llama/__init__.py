"""Llama 2 architecture (Touvron et al. 2023) as `LlamaForCausalLM`: dense, no QK-norm, one kind of layer."""
