-- Join by hashing where an index is not asked for in so many words (LATERAL): the planner cannot know how many accounts a
-- range has histories for, and takes them for a handful.
SELECT set_config('enable_nestloop', 'off', true)
