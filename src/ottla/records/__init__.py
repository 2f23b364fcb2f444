"""Record batches (magic 2): reading, checking and building them over one buffer."""
