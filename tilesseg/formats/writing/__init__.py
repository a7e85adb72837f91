"""Parts that writers share: targets and whole files, compressed TIFF tiles in threads, the preview, text in XML."""
