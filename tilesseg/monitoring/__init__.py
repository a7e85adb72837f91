"""What people see of a run while it lasts: the bar in the terminal, the dashboard, the metrics."""
