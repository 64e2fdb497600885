"""Replaces sensitive data in message texts before they leave the store."""
