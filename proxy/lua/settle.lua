-- Ends a hold: what it reserved is given back, what was spent is counted. Only the first
-- one of any number of tries does anything, since the hold is gone after it.
-- KEYS: epoch, holds, hold
-- ARGV: hold id, common beginning of all keys, epoch the hold was made in, tokens consumed,
--       keys of the windows that the served attempt counts in (JSON),
--       what is charged as JSON: [[counter, nano-dollars, bucket or -1, bucket_s, life_s], ...]
-- Answers 1 when the hold was there, else 0.
local raw = redis.call('GET', KEYS[3])
redis.call('ZREM', KEYS[2], ARGV[1])
if not raw then
  return 0
end
redis.call('DEL', KEYS[3])
local hold, prefix, now_ms = cjson.decode(raw), ARGV[2], server_ms()
for _, entry in ipairs(hold.budgets) do
  release(prefix .. 'b:' .. entry[1], entry[2])
end
for _, key in ipairs(hold.parallel) do
  redis.call('ZREM', key, ARGV[1])
end

local served = {}
for _, key in ipairs(cjson.decode(ARGV[5])) do
  served[key] = true
end
for index = #hold.limits, 1, -1 do
  local entry = hold.limits[index]
  local key, i, tokens = entry[1], text(entry[2]), 0
  if served[key] then
    tokens = tonumber(ARGV[4])
    served[key] = nil  -- of several attempts on one deployment the last one answered
  end
  if redis.call('HEXISTS', key, 'm' .. i) == 1 then
    redis.call('HINCRBY', key, 't' .. i, text(tokens - entry[3]))
    redis.call('HINCRBY', key, 't', text(tokens - entry[3]))
  end
end

if redis.call('GET', KEYS[1]) == ARGV[3] then
  -- In counters that were built anew the ledger's own update counts it.
  for _, charge in ipairs(cjson.decode(ARGV[6])) do
    local key = prefix .. 'b:' .. charge[1]
    spend(key, charge[2], charge[3], charge[4], charge[5], now_ms)
    redis.call('HINCRBY', key, 'p', text(charge[2]))
  end
end
return 1
