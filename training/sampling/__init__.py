"""Pictures of an object from a few sides, and a prompt -> a clip of it moving, from the same sides."""
