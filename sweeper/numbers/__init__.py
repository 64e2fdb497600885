"""What can be said in numbers of how things stand: reports, status, metrics."""
