-- Holds whose worker died or lost its way: what they reserved is given back, and the hold
-- waits in a list until the control plane has accounted for it.
-- KEYS: holds, abandoned
-- ARGV: common beginning of all keys, how many at most
-- Answers how many were swept.
local now_ms = server_ms()
local ids = redis.call(
  'ZRANGEBYSCORE', KEYS[1], '-inf', text(now_ms), 'LIMIT', 0, ARGV[2]
)
for _, id in ipairs(ids) do
  local name = ARGV[1] .. 'hold:' .. id
  local raw = redis.call('GET', name)
  local expired = redis.call('ZSCORE', KEYS[1], id)
  redis.call('ZREM', KEYS[1], id)
  if raw then
    redis.call('DEL', name)
    local hold = cjson.decode(raw)
    for _, entry in ipairs(hold.budgets) do
      release(ARGV[1] .. 'b:' .. entry[1], entry[2])
    end
    for _, key in ipairs(hold.parallel) do
      redis.call('ZREM', key, id)
    end
    local told = string.gsub(raw, '^{"expires_ms":%d+', '{"expires_ms":' .. text(tonumber(expired)), 1)
    redis.call('RPUSH', KEYS[2], told)
  end
end
return #ids
