"""Bad nights, judged by what the program prints alone."""
