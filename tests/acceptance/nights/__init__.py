"""Bad nights, each judged by what the program prints: it names the cause and what mends it, and says so until it is mended."""
