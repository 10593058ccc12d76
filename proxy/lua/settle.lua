-- Ends holds: what each reserved is given back, what was spent is counted. Only the first
-- one of any number of tries does anything, since the hold is gone after it.
-- KEYS: epoch, holds
-- ARGV: of each hold its id, the epoch it was made in, amounts, rules, and the keys of its
--       budgets, windows and parallel sets
--   rules (numbers): how many budgets, windows and parallel sets; then
--     of each budget   1 if the cost belongs to it, bucket or -1, bucket_s, end_ms, kept_s
--     of each window   1 if the tokens belong to it
--   amounts (numbers): 1 if this is all that the hold reserved (else the hold says it), tokens
--     consumed, nano-dollars spent, the estimate of each budget, second and tokens of each window
-- Answers the places (from 0) of those that failed.
local epoch = redis.call('GET', KEYS[1])
local prefix = string.sub(KEYS[1], 1, -6)  -- what is in front of "epoch" is in front of all
local now_ms = server_ms()

local function correct(key, second, tokens)
  if tokens == 0 then
    return
  end
  local found = redis.call('HMGET', key, 't', second)
  if found[2] then
    local made, used, last = entry_of(found[2])
    redis.call('HSET', key, 't', text(tonumber(found[1] or 0) + tokens),
               second, entry_text(made, used + tokens, last))
  end
end

-- Gives back what the hold itself says that it reserved.
local function give_back(id, raw, served, tokens)
  local hold = cjson.decode(raw)
  for _, entry in ipairs(hold.budgets) do
    release(prefix .. 'b:' .. entry[1], entry[2])
  end
  for _, key in ipairs(hold.parallel) do
    redis.call('ZREM', key, id)
  end
  for index = #hold.limits, 1, -1 do
    local key, second, reserved = unpack(hold.limits[index])
    local consumed = 0
    if served[key] then
      consumed = tokens
      served[key] = nil  -- of several attempts on one deployment the last one answered
    end
    correct(key, text(second), consumed - reserved)
  end
end

local function settle(at, rules)
  local id, name = ARGV[at], prefix .. 'hold:' .. ARGV[at]
  local budgets, windows, sets = rules[1], rules[2], rules[3]
  local amounts = numbers(ARGV[at + 2])
  local all_known, tokens, nano = amounts[1] == 1, amounts[2], amounts[3]
  local raw = all_known or redis.call('GET', name)
  redis.call('ZREM', KEYS[2], id)
  if redis.call('DEL', name) == 0 then
    return
  end
  local first_window = at + 3 + budgets
  local served, place = {}, 3 + 5 * budgets
  for i = 1, windows do
    local key = ARGV[first_window + i]
    if not all_known then
      served[key] = served[key] or rules[place + i] == 1
    else
      local consumed = rules[place + i] == 1 and tokens or 0
      local w = 2 + budgets + 2 * i
      correct(key, amounts[w], consumed - amounts[w + 1])
    end
  end
  if not all_known then
    give_back(id, raw, served, tokens)
  end
  place = 4
  for i = 1, budgets do
    local key = ARGV[at + 3 + i]
    if all_known then
      release(key, amounts[3 + i])
    end
    if rules[place] == 1 and nano > 0 and ARGV[at + 1] == epoch then
      -- In counters that were built anew the ledger's own update counts it.
      spend(key, nano, rules[place + 1], rules[place + 2], rules[place + 3], rules[place + 4],
            now_ms)
      redis.call('HINCRBY', key, 'p', nano)
    end
    place = place + 5
  end
  if all_known then
    for i = 1, sets do
      redis.call('ZREM', ARGV[first_window + windows + i], id)
    end
  end
end

local at, index, failed = 1, 0, {}
while at < #ARGV do
  local rules = numbers(ARGV[at + 3])
  if not pcall(settle, at, rules) then
    failed[#failed + 1] = index
  end
  at, index = at + 4 + rules[1] + rules[2] + rules[3], index + 1
end
return failed
