"""Process groups: how the ranks that share a layer speak to each other."""
