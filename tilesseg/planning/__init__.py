"""Decisions: from a job file to stored plans, every choice and every refusal before the first tile."""
