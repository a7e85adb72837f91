"""`report.html`: one file without scripts that opens anywhere."""
