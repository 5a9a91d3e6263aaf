"""One file per group of subcommands; each parses, calls the library and reports."""
