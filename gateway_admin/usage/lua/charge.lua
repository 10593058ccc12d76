-- Tells the counters of events that the ledger has just taken in.
-- KEYS: epoch, marker of the update, one budget hash per change
-- ARGV: part of the update, marker's life (s), then per change:
--       epoch it was settled in ("": counted by the worker alone), nano-dollars,
--       rolling bucket or "", bucket's width (s) or "", life of the hash (s) or "0"
-- Answers the epoch, or false when the counters are not built.
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  return false
end
if redis.call('HSETNX', KEYS[2], ARGV[1], '1') == 0 then
  return epoch
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
local now_s = tonumber(redis.call('TIME')[1])
for i = 3, #KEYS do
  local key, a = KEYS[i], 3 + (i - 3) * 5
  local nano, bucket, life = ARGV[a + 1], ARGV[a + 2], ARGV[a + 4]
  if ARGV[a] == epoch then
    -- Spent already, when it was settled: it only waits for the ledger no longer.
    if redis.call('EXISTS', key) == 1 then
      redis.call('HINCRBY', key, 'p', '-' .. nano)
    end
  elseif bucket == '' then
    redis.call('HINCRBY', key, 's', nano)
    if life ~= '0' and redis.call('TTL', key) == -1 then
      redis.call('EXPIRE', key, life)
    end
  else
    local oldest = math.floor(now_s / tonumber(ARGV[a + 3])) - 60
    if tonumber(bucket) >= oldest then
      redis.call('HINCRBY', key, 's', nano)
      redis.call('HINCRBY', key, 'b' .. bucket, nano)
      local o = redis.call('HGET', key, 'o')
      if not o or tonumber(bucket) < tonumber(o) then
        redis.call('HSET', key, 'o', bucket)
      end
      redis.call('EXPIRE', key, life)
    end
  end
end
return epoch
