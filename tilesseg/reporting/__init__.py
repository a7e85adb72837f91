"""Results of a run, read from its directory alone: status, summary, `report.html`."""
