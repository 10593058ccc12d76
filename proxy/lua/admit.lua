-- Admits a request under all its rules or under none, and writes its hold.
-- KEYS: epoch, holds, then the budgets, the windows, the parallel sets, and last the hold
-- ARGV: hold id, the hold's JSON without expiry, epoch, limits and opening brace,
--       inside of the hold's list of limits, where \0 stands for the present second,
--       epoch of the hold that gets further rules ("": a new hold), rules, amounts
--   rules (numbers): life of a hold (ms), how many budgets, windows and parallel sets; then
--     of each budget   is_target, limit, start_ms, end_ms, bucket_s, kept_s
--     of each window   is_target, requests per minute or 0, tokens per minute or 0
--     of each set      limit
--   amounts (numbers): the estimate of each budget, the tokens of each window
-- Answers {verdict, server ms, epoch, refused kind, refused index, wait ms,
--          spent and held of each budget, requests and tokens of each window, running ones},
-- all before this request; the verdict is ok, refused, unbuilt, stale (a period that is not
-- the present one) or gone.
-- A window is a hash: r and t are its sums, o its oldest second, e the moment (ms) before
-- which nothing leaves it, and each second has an entry "requests tokens moment", the last
-- being that of its last request (ms): it counts until 60 s after that.

local OK, REFUSED, UNBUILT, STALE, GONE = 0, 1, 2, 3, 4
local BUDGET, RPM, TPM, PARALLEL = 0, 1, 2, 3

local now_ms = server_ms()
local epoch = redis.call('GET', KEYS[1])
if not epoch then
  return {UNBUILT, now_ms, ''}
end
if ARGV[4] ~= '' and (ARGV[4] ~= epoch or redis.call('EXISTS', KEYS[#KEYS]) == 0) then
  return {GONE, now_ms, epoch}
end

local second = math.floor(now_ms / 1000)
local rules, amounts = numbers(ARGV[5]), numbers(ARGV[6])
local budgets, windows, sets = rules[2], rules[3], rules[4]
local first_window, first_set = 2 + budgets, 2 + budgets + windows
local answer, told, refused = {OK, now_ms, epoch, 0, 0, 0}, 6, false

local function refuse(is_target, kind, index, wait_ms)
  if answer[1] == OK or (refused == 1 and is_target == 0) then
    answer[1], answer[4], answer[5], answer[6] = REFUSED, kind, index, wait_ms
    refused = is_target
  end
end

-- Drops the seconds that do not count any more; gives what is left: requests, tokens, oldest.
local function expire_window(key, index, requests, tokens)
  local oldest, leaves_ms = index, nil
  if index < second - 130 then
    redis.call('DEL', key)
    return 0, 0, nil
  end
  while index <= second do
    local entry = redis.call('HGET', key, index)
    if entry then
      local made, used, last = entry_of(entry)
      if last > now_ms - 60000 then
        leaves_ms = last + 60000
        break
      end
      requests, tokens = requests - made, tokens - used
      redis.call('HDEL', key, index)
    end
    index = index + 1
  end
  if index > second then
    redis.call('DEL', key)
    return 0, 0, nil
  end
  redis.call('HSET', key, 'o', index, 'e', leaves_ms, 'r', text(requests), 't', text(tokens))
  return requests, tokens, index
end

-- How long until so many requests and tokens have left the window.
local function wait_for(key, requests, tokens)
  local index, last = tonumber(redis.call('HGET', key, 'o')) or second, now_ms - 60000
  while index <= second and (requests > 0 or tokens > 0) do
    local entry = redis.call('HGET', key, index)
    if entry then
      local made, used, moment = entry_of(entry)
      last, requests, tokens = moment, requests - made, tokens - used
    end
    index = index + 1
  end
  return math.max(last + 60000 - now_ms, 1)
end

local at = 5
for i = 1, budgets do
  local key, estimate = KEYS[2 + i], amounts[i]
  local end_ms, bucket_s = rules[at + 3], rules[at + 4]
  if end_ms > 0 and (now_ms < rules[at + 2] or now_ms >= end_ms) then
    return {STALE, now_ms, epoch}
  end
  if bucket_s > 0 then
    roll(key, bucket_s, now_ms)
  end
  local found = redis.call('HMGET', key, 's', 'h')
  local spent, held = tonumber(found[1] or 0), tonumber(found[2] or 0)
  answer[told + 1], answer[told + 2], told = spent, held, told + 2
  if estimate > 0 and spent + held + estimate > rules[at + 1] then
    refuse(rules[at], BUDGET, i - 1, 0)
  end
  at = at + 6
end

local states = {}
for i = 1, windows do
  local key, wanted = KEYS[first_window + i], amounts[budgets + i]
  local found = redis.call('HMGET', key, 'r', 't', 'o', 'e', second)
  local requests, tokens = tonumber(found[1] or 0), tonumber(found[2] or 0)
  local oldest = tonumber(found[3])
  if oldest and oldest <= second - 60 and now_ms >= tonumber(found[4] or 0) then
    requests, tokens, oldest = expire_window(key, oldest, requests, tokens)
  end
  answer[told + 1], answer[told + 2], told = requests, tokens, told + 2
  states[i] = {requests, tokens, oldest, found[5]}
  local rpm, tpm = rules[at + 1], rules[at + 2]
  if rpm > 0 and requests + 1 > rpm then
    refuse(rules[at], RPM, i - 1, wait_for(key, requests + 1 - rpm, 0))
  elseif tpm > 0 and tokens + wanted > tpm then
    refuse(rules[at], TPM, i - 1, wait_for(key, 0, tokens + wanted - tpm))
  end
  at = at + 3
end

for i = 1, sets do
  local key, limit = KEYS[first_set + i], rules[at]
  local running = redis.call('ZCARD', key)
  if running + 1 > limit then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    running = redis.call('ZCARD', key)
    if running + 1 > limit and not redis.call('ZSCORE', key, ARGV[1]) then
      refuse(0, PARALLEL, i - 1, 1000)
    end
  end
  answer[told + 1], told = running, told + 1
  at = at + 1
end
if answer[1] ~= OK then
  return answer
end

at = 5
for i = 1, budgets do
  local key, kept_s = KEYS[2 + i], rules[at + 5]
  redis.call('HINCRBY', key, 'h', amounts[i])
  -- A counter that nothing was spent in may have been made by the line above.
  if kept_s > 0 and (rules[at + 4] > 0 or
      (answer[5 + 2 * i] == 0 and redis.call('TTL', key) == -1)) then
    redis.call('EXPIRE', key, life_s(rules[at + 3], kept_s, now_ms))
  end
  at = at + 6
end
for i = 1, windows do
  local key, wanted, state = KEYS[first_window + i], amounts[budgets + i], states[i]
  local entry = state[4]
  if entry and state[3] then
    local made, used = entry_of(entry)
    redis.call('HSET', key, 'r', state[1] + 1, 't', state[2] + wanted,
               second, entry_text(made + 1, used + wanted, now_ms))
  else
    redis.call('HSET', key, 'r', state[1] + 1, 't', state[2] + wanted, 'o', state[3] or second,
               second, entry_text(1, wanted, now_ms))
    redis.call('EXPIRE', key, 120)
  end
end
local expires_ms = text(now_ms + rules[1])
for i = 1, sets do
  local key = KEYS[first_set + i]
  redis.call('ZADD', key, expires_ms, ARGV[1])
  redis.call('EXPIRE', key, 3600)
end
local limits = string.gsub(ARGV[3], '%z', text(second))
redis.call('SET', KEYS[#KEYS], '{"expires_ms":' .. expires_ms .. ',"epoch":' .. cjson.encode(epoch)
           .. ',"limits":[' .. limits .. '],' .. ARGV[2])
redis.call('ZADD', KEYS[2], expires_ms, ARGV[1])
return answer
