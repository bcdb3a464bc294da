"""Tools that make new datasets of old ones: each reads any format, and none changes its source unless told."""
