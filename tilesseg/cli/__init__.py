"""The command line: what a person types, the options, and what is printed."""
