"""One module per file format: each turns the bytes of a file into documents, streaming, and names what it could not read."""
