"""Text to ids and back: byte-level BPE whose smaller vocabularies are prefixes of the larger, and the chat template."""
