"""Models described by bioimage.io: their rdf.yaml becomes a `ModelSpec`."""
