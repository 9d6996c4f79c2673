"""DeepSeek-V3.2 (DeepSeek-AI 2025) as `DeepseekV32ForCausalLM`: deepseek_v3 whose queries read the keys that an indexer chooses."""
