-- Have the fence alone: every batch that has begun has ended, and no other begins until this transaction does.
LOCK TABLE sweeper.fence IN EXCLUSIVE MODE
