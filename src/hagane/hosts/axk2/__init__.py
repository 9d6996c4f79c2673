"""A.X K2 (SK Telecom 2026) as `AXK2ForCausalLM`: DeepSeek-V3.2 with an output gate on attention and gates on norms."""
