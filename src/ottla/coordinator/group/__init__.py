"""Consumer groups: their members, generations and committed offsets."""
