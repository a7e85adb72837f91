"""Bundles written for other projects: ONNX, bioimage.io, STAC MLM."""
