"""A.X K1 (SK Telecom 2026) as `AXK1ForCausalLM`: DeepSeek-V3 with one more norm, of what the experts add to the stream."""
