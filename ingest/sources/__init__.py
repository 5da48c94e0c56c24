"""Where assets are listed: each source is a file here, and `open_source` tells from its name which one is meant."""
