-- A worker's sign of life: its running holds live on, and it learns what others did.
-- KEYS: epoch, holds, workers, then budgets and windows to look at
-- ARGV: worker's id, life of a hold (ms), seconds after which a worker counts as lost,
--       JSON {hold id: [keys of its parallel sets]}, JSON [bucket_s of each budget or 0]
-- Answers {server ms, epoch, ids of live workers, renewed holds, spent and held of each budget}
local now_ms = server_ms()
local expires_ms = text(now_ms + tonumber(ARGV[2]))
redis.call('ZADD', KEYS[3], text(now_ms), ARGV[1])
local lost_ms = text(now_ms - tonumber(ARGV[3]) * 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', lost_ms)
local renewed = 0
for id, sets in pairs(cjson.decode(ARGV[4])) do
  -- One that was settled or abandoned is not brought back.
  if redis.call('ZSCORE', KEYS[2], id) then
    renewed = renewed + 1
    redis.call('ZADD', KEYS[2], 'XX', expires_ms, id)
    for _, key in ipairs(sets) do
      -- Its place may have been given up while Redis slept: the request runs all the same.
      redis.call('ZADD', key, expires_ms, id)
      redis.call('EXPIRE', key, '3600')
    end
  end
end
local found = {}
for i, bucket_s in ipairs(cjson.decode(ARGV[5])) do
  local key = KEYS[3 + i]
  if bucket_s > 0 then
    roll(key, bucket_s, now_ms)
  end
  local amounts = redis.call('HMGET', key, 's', 'h')
  found[#found + 1] = text(tonumber(amounts[1]) or 0)
  found[#found + 1] = text(tonumber(amounts[2]) or 0)
end
return {text(now_ms), redis.call('GET', KEYS[1]) or '', redis.call('ZRANGE', KEYS[3], 0, -1),
        renewed, found}
