"""The command line: `main` has the parser, errors and signals; each other command has a file."""
