"""The command line: one command, one file. Results go to stdout, everything else to stderr."""
