"""The data-retention sweeper: decides, explains, purges and records, over PostgreSQL."""
