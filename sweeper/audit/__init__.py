"""Tamper-evident evidence: checkpoints over tombstones and events, their verification, receipts and exports."""
