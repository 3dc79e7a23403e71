-- Tells the highest life of a node that was heard of before this one, and keeps the highest.
--
-- KEYS[1]: the lives, a hash. ARGV: the node's entry, its life in 16 hex digits, so that they compare as the numbers do.
local before = redis.call("HGET", KEYS[1], ARGV[1])
if not before or before < ARGV[2] then redis.call("HSET", KEYS[1], ARGV[1], ARGV[2]) end
return before
