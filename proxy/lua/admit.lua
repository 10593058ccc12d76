-- Admits a request under all its rules or under none, and writes its hold.
-- KEYS: epoch, holds, hold, workers, then the budgets, the windows, the parallel sets
-- ARGV: hold id, the hold's JSON without expiry, epoch and limits, life of a hold (ms),
--       epoch of the hold that gets further rules ("": a new hold), seconds after which a
--       worker counts as lost, the hold's entries of limits so far (inside of a JSON list),
--       rules as JSON:
--   b  [[is_target, estimate, limit, start_ms, end_ms, bucket_s, life_s], ...]
--   l  [[is_target, requests per minute or 0, tokens per minute or 0, tokens], ...]
--   p  [[is_target, limit], ...]
-- Answers {verdict, server ms, epoch, workers, bucket, refused kind, refused index, wait ms,
--          spent and held of each budget, requests and tokens of each window, running ones}
-- with verdict ok, refused, unbuilt, stale (a period that is not the present one), gone.
-- A window is a hash: r and t are its sums, o its oldest bucket, and per second r<i>, t<i>
-- and m<i>, the moment (ms) of its last request: a bucket counts until 60 s after that.

local now_ms = server_ms()
local epoch = redis.call('GET', KEYS[1])
local rules = cjson.decode(ARGV[7])
local workers = redis.call('ZCOUNT', KEYS[4], text(now_ms - tonumber(ARGV[5]) * 1000), '+inf')
local bucket = math.floor(now_ms / 1000)

local function answer(verdict, kind, index, wait_ms, found)
  return {verdict, text(now_ms), epoch or '', workers, bucket, kind or '', index or 0,
          wait_ms or 0, found or {}}
end

if not epoch then
  return answer('unbuilt')
end
if ARGV[4] ~= '' and (ARGV[4] ~= epoch or redis.call('EXISTS', KEYS[3]) == 0) then
  return answer('gone')
end

local function expire_window(key)
  local oldest = tonumber(redis.call('HGET', key, 'o'))
  if not oldest then
    return
  end
  local requests, tokens, index = 0, 0, oldest
  if index < bucket - 130 then
    redis.call('DEL', key)
    return
  end
  while index <= bucket do
    local i = text(index)
    local last = redis.call('HGET', key, 'm' .. i)
    if last then
      if tonumber(last) > now_ms - 60000 then
        break
      end
      requests = requests + tonumber(redis.call('HGET', key, 'r' .. i) or 0)
      tokens = tokens + tonumber(redis.call('HGET', key, 't' .. i) or 0)
      redis.call('HDEL', key, 'm' .. i, 'r' .. i, 't' .. i)
    end
    index = index + 1
  end
  if index > bucket then
    redis.call('DEL', key)
  elseif index > oldest then
    redis.call('HSET', key, 'o', text(index))
    redis.call('HINCRBY', key, 'r', text(-requests))
    redis.call('HINCRBY', key, 't', text(-tokens))
  end
end

-- How long until so many requests and tokens have left the window.
local function wait_for(key, requests, tokens)
  local index, last = tonumber(redis.call('HGET', key, 'o')) or bucket, now_ms - 60000
  while index <= bucket and (requests > 0 or tokens > 0) do
    local i = text(index)
    local moment = redis.call('HGET', key, 'm' .. i)
    if moment then
      last = tonumber(moment)
      requests = requests - tonumber(redis.call('HGET', key, 'r' .. i) or 0)
      tokens = tokens - tonumber(redis.call('HGET', key, 't' .. i) or 0)
    end
    index = index + 1
  end
  return math.max(last + 60000 - now_ms, 1)
end

local first_limit = 5 + #rules.b
local first_parallel = first_limit + #rules.l
local refused, found = nil, {}

local function refuse(is_target, kind, index, wait_ms)
  if not refused or (refused.is_target and is_target == 0) then
    refused = {is_target = is_target == 1, kind = kind, index = index, wait_ms = wait_ms}
  end
end

for i, rule in ipairs(rules.b) do
  local key = KEYS[4 + i]
  local is_target, estimate, limit = rule[1], rule[2], rule[3]
  if rule[5] > 0 and (now_ms < rule[4] or now_ms >= rule[5]) then
    return answer('stale', 'b', i - 1)
  end
  if rule[6] > 0 then
    roll(key, rule[6], now_ms)
  end
  local amounts = redis.call('HMGET', key, 's', 'h')
  local spent, held = tonumber(amounts[1]) or 0, tonumber(amounts[2]) or 0
  found[#found + 1] = text(spent)
  found[#found + 1] = text(held)
  if estimate > 0 and spent + held + estimate > limit then
    refuse(is_target, 'budget', i - 1, 0)
  end
end
for i, rule in ipairs(rules.l) do
  local key = KEYS[first_limit + i - 1]
  local is_target, rpm, tpm, wanted = rule[1], rule[2], rule[3], rule[4]
  expire_window(key)
  local sums = redis.call('HMGET', key, 'r', 't')
  local requests, tokens = tonumber(sums[1]) or 0, tonumber(sums[2]) or 0
  found[#found + 1] = text(requests)
  found[#found + 1] = text(tokens)
  if rpm > 0 and requests + 1 > rpm then
    refuse(is_target, 'rpm', i - 1, wait_for(key, requests + 1 - rpm, 0))
  elseif tpm > 0 and tokens + wanted > tpm then
    refuse(is_target, 'tpm', i - 1, wait_for(key, 0, tokens + wanted - tpm))
  end
end
for i, rule in ipairs(rules.p) do
  local key = KEYS[first_parallel + i - 1]
  redis.call('ZREMRANGEBYSCORE', key, '-inf', text(now_ms))
  local running = redis.call('ZCARD', key)
  found[#found + 1] = text(running)
  if running + 1 > rule[2] and not redis.call('ZSCORE', key, ARGV[1]) then
    refuse(rule[1], 'parallel', i - 1, 1000)
  end
end
if refused then
  return answer('refused', refused.kind, refused.index, refused.wait_ms, found)
end

for i, rule in ipairs(rules.b) do
  local key = KEYS[4 + i]
  redis.call('HINCRBY', key, 'h', text(rule[2]))
  if rule[7] > 0 and (rule[6] > 0 or redis.call('TTL', key) == -1) then
    redis.call('EXPIRE', key, text(rule[7]))
  end
end
for i, rule in ipairs(rules.l) do
  local key, index = KEYS[first_limit + i - 1], text(bucket)
  redis.call('HINCRBY', key, 'r', '1')
  redis.call('HINCRBY', key, 't', text(rule[4]))
  redis.call('HINCRBY', key, 'r' .. index, '1')
  redis.call('HINCRBY', key, 't' .. index, text(rule[4]))
  redis.call('HSET', key, 'm' .. index, text(now_ms))
  redis.call('HSETNX', key, 'o', index)
  redis.call('EXPIRE', key, '120')
end
local expires_ms = text(now_ms + tonumber(ARGV[3]))
for i = 1, #rules.p do
  local key = KEYS[first_parallel + i - 1]
  redis.call('ZADD', key, expires_ms, ARGV[1])
  redis.call('EXPIRE', key, '3600')
end
local entries = {}
if ARGV[6] ~= '' then
  entries[1] = ARGV[6]
end
for i, rule in ipairs(rules.l) do
  local name = cjson.encode(KEYS[first_limit + i - 1])
  entries[#entries + 1] = '[' .. name .. ',' .. text(bucket) .. ',' .. text(rule[4]) .. ']'
end
local head = '{"expires_ms":' .. expires_ms .. ',"epoch":' .. cjson.encode(epoch)
head = head .. ',"limits":[' .. table.concat(entries, ',') .. '],'
redis.call('SET', KEYS[3], head .. string.sub(ARGV[2], 2))
redis.call('ZADD', KEYS[2], expires_ms, ARGV[1])
return answer('ok', '', 0, 0, found)
