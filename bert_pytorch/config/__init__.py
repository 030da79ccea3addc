"""Configuration: typed settings, the command line made from them, files beneath it, and where each value came from."""
