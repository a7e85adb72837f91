"""What all writers share: windows in parallel, compressed tiles, the preview, publishing whole files."""
