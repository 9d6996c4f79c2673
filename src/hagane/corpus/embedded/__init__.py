"""Text and problems that need no download: a generator in nine languages, and the running interpreter's own library."""
