"""A run while it lasts, drawn from its events: the bar in the terminal, the dashboard, the metrics."""
