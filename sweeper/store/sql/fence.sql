-- Share the fence that every placement of a legal hold has alone: holds read after this are all the holds there are.
LOCK TABLE sweeper.fence IN SHARE MODE
