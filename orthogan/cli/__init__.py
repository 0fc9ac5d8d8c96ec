"""The command line, one file per command: its docstring is the help, ``add_arguments`` the parser, ``run`` the work.

A new command is a new file here. Files that start with an underscore or have no ``run`` are not commands.
"""
