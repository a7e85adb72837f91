"""From a job file to stored plans: every decision and every refusal comes before the first tile."""
