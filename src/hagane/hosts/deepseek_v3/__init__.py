"""DeepSeek-V3 (DeepSeek-AI 2024) as `DeepseekV3ForCausalLM`: latent attention, sigmoid experts balanced by bias, shared experts, first layers dense."""
