"""The demonstration: a store of real conversations, swept before the reader's eyes."""
