"""Networks that other projects describe: STAC MLM items, MONAI bundles, ONNX files with metadata of Deepness."""
