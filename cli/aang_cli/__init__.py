"""The command line of aang: one thin module for each command."""
