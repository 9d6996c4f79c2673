"""Arcee Trinity as `AfmoeForCausalLM`: windows with positions, whole layers without, output gates, norms before and after, sigmoid experts."""
