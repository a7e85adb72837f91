"""One part of tilesseg at a time: memory, products, staging, scene lists, the dashboard."""
