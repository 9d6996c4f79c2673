"""Qwen3-Next (Qwen team 2025) as `Qwen3NextForCausalLM`: Gated DeltaNet and gated attention, routed experts with a gated shared one."""
