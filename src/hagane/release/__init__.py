"""A trained model as other people's engines read it, proven equal before it is called released."""
