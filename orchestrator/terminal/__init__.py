"""The command line's options, the console and the progress bar."""
