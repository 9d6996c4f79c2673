"""What the user asks for: the recipe schema, the types that plan and train share, loading. No torch in this room."""
