"""Tamper-evident evidence: a Merkle tree over tombstones and events, signed checkpoints, verification, receipts and exports."""
