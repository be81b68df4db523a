"""Other people's environments in, ours out; logs, trackers, tables and model cards of other tools.

A file that needs a package which gentax does not bring names the command that installs it.
"""
