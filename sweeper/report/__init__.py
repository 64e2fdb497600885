"""Reports, status and metrics: counts of what is stored, overdue, held and purged."""
