-- Corrects counters by what a check of the ledger found, however they moved meanwhile.
-- KEYS: epoch, one budget hash per correction
-- ARGV: the epoch that was checked, then per correction:
--       nano-dollars to add to what is spent, life (s) of a hash that is made ("0": for ever),
--       JSON of a rolling period's buckets {index: nano-dollars to add} or ""
-- Answers false when the counters are others by now; nothing was corrected then.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return false
end
for i = 2, #KEYS do
  local key, a = KEYS[i], 2 + (i - 2) * 3
  local made = redis.call('EXISTS', key) == 0
  redis.call('HINCRBY', key, 's', ARGV[a])
  if ARGV[a + 2] ~= '' then
    local o = redis.call('HGET', key, 'o')
    for bucket, nano in pairs(cjson.decode(ARGV[a + 2])) do
      redis.call('HINCRBY', key, 'b' .. bucket, nano)
      if not o or tonumber(bucket) < tonumber(o) then
        o = bucket
      end
    end
    redis.call('HSET', key, 'o', o)
  end
  if made and ARGV[a + 1] ~= '0' then
    redis.call('EXPIRE', key, ARGV[a + 1])
  end
end
return true
