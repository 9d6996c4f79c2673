"""GLM-4.5 (Zeng et al. 2025) as `Glm4MoeForCausalLM`: grouped-query attention, sigmoid experts with a selection bias, shared experts."""
