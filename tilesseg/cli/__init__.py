"""The command line: what a person types, the options, and what is printed.

A file for each command. Files with many options have no `from __future__ import annotations`: Typer would compile each
annotation again at every start.
"""
