"""Recognises sensitive data in message texts and replaces it before the texts leave the store."""
