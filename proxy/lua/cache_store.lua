-- Keeps one answer, unless the environment's cache is full.
-- KEYS  1 entry  2 hash: hour of expiry -> bytes that expire in it
-- ARGV  1 sealed answer  2 time to live, s  3 most bytes of all entries
-- Reply 1 kept, 0 full
local now = tonumber(redis.call('TIME')[1])
local ttl, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local size, total = #ARGV[1], 0

local hours = redis.call('HGETALL', KEYS[2])
for i = 1, #hours, 2 do
  if (tonumber(hours[i]) + 1) * 3600 <= now then
    redis.call('HDEL', KEYS[2], hours[i])
  else
    total = total + tonumber(hours[i + 1])
  end
end

local old = redis.call('STRLEN', KEYS[1])
if total - old + size > most then
  return 0
end
if old > 0 then
  local until_s = tonumber(redis.call('EXPIRETIME', KEYS[1]))
  redis.call('HINCRBY', KEYS[2], math.floor(until_s / 3600), -old)
end
redis.call('SET', KEYS[1], ARGV[1], 'EXAT', now + ttl)
redis.call('HINCRBY', KEYS[2], math.floor((now + ttl) / 3600), size)
if redis.call('TTL', KEYS[2]) < ttl + 3600 then
  redis.call('EXPIRE', KEYS[2], ttl + 3600)
end
return 1
