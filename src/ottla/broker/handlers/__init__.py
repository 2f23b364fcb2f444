"""One module for each API: the versions that are served, and what is done."""
