-- The circuit breakers of deployments, shared by the fleet: proxy/breaker_machine.py on Redis.
--
-- KEYS      one hash per deployment
-- ARGV[1]   present moment in ms; "" takes the server's
-- ARGV[2]   channel on which changes are announced
-- ARGV[3]   JSON of the settings (BreakerDocument)
-- ARGV[4]   who asks: a worker's name
-- ARGV[4+i] JSON list of what to do with KEYS[i], in order:
--             ["a", token, lease_ms]                       acquire
--             ["w", generation, token, lease_ms]           renew
--             ["r", generation, token, outcomes, last]     record
--             ["p", wait_ms]                               pause
--             ["o", order, action]                         follow an order
-- Reply: the moment, then for each key
--   {state, generation, since_ms, held, paused_ms, granted, reason, who moved it}
--
-- Fields: st state, g generation, t since, h held, y reason, w who, p paused, f failures,
-- n successes, o order, m bucket length, b<index> calls:failures, k<token> expiry.

local BUCKETS = 10
local KEEP_MS = 86400000
local rules = cjson.decode(ARGV[3])
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function load_machine(key)
  local machine = {state = 'closed', generation = 0, since = 0, held = 0, reason = '', who = '',
    paused = 0, failures = 0, successes = 0, order = 0, bucket_ms = 0, buckets = {}, permits = {}}
  local names = {g = 'generation', t = 'since', h = 'held', p = 'paused', f = 'failures',
    n = 'successes', o = 'order', m = 'bucket_ms'}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local first = string.sub(name, 1, 1)
    if names[name] then
      machine[names[name]] = tonumber(value)
    elseif name == 'st' then
      machine.state = value
    elseif name == 'y' then
      machine.reason = value
    elseif name == 'w' then
      machine.who = value
    elseif first == 'b' then
      local calls, failed = string.match(value, '(%d+):(%d+)')
      machine.buckets[string.sub(name, 2)] = {tonumber(calls), tonumber(failed)}
    elseif first == 'k' then
      machine.permits[string.sub(name, 2)] = tonumber(value)
    end
  end
  return machine
end

local function save_machine(key, machine)
  local fields = {'st', machine.state, 'g', whole(machine.generation), 't', whole(machine.since),
    'h', machine.held, 'y', machine.reason, 'w', machine.who, 'p', whole(machine.paused),
    'f', machine.failures, 'n', machine.successes, 'o', whole(machine.order),
    'm', whole(machine.bucket_ms)}
  for index, counts in pairs(machine.buckets) do
    fields[#fields + 1] = 'b' .. index
    fields[#fields + 1] = counts[1] .. ':' .. counts[2]
  end
  for token, expiry in pairs(machine.permits) do
    fields[#fields + 1] = 'k' .. token
    fields[#fields + 1] = whole(expiry)
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  if machine.held == 0 then
    redis.call('PEXPIRE', key, KEEP_MS)
  end
end

local function move(machine, state, reason)
  machine.state, machine.since, machine.reason, machine.who = state, now, reason, ARGV[4]
  machine.generation = math.max(machine.generation + 1, now)
  machine.held, machine.failures, machine.successes = 0, 0, 0
  machine.buckets, machine.permits = {}, {}
end

local function acquire(machine, token, lease_ms)
  if machine.state == 'open' then
    if machine.held == 1 then
      return 0
    elseif not rules.enabled then
      move(machine, 'closed', 'breakers were switched off')
    elseif now < machine.since + rules.open_s * 1000 then
      return 0
    else
      move(machine, 'half_open', string.format('open for %d s: trial calls', rules.open_s))
    end
  elseif machine.state == 'half_open' and not rules.enabled then
    move(machine, 'closed', 'breakers were switched off')
  end
  if machine.state == 'closed' then
    return 1
  end
  local out, kept = 0, {}
  for held, expiry in pairs(machine.permits) do
    if expiry > now then
      kept[held] = expiry
      out = out + 1
    end
  end
  machine.permits = kept
  if out >= rules.half_open_permits then
    return 0
  end
  machine.permits[token] = now + lease_ms
  return 1
end

local function bucket(machine)
  local length_ms = math.floor(rules.window_s * 1000 / BUCKETS)
  if length_ms ~= machine.bucket_ms then
    machine.bucket_ms, machine.buckets = length_ms, {}
  end
  local index = math.floor(now / length_ms)
  local kept = {}
  for at, counts in pairs(machine.buckets) do
    if index - BUCKETS < tonumber(at) and tonumber(at) <= index then
      kept[at] = counts
    end
  end
  machine.buckets = kept
  local name = whole(index)
  kept[name] = kept[name] or {0, 0}
  return kept[name]
end

local function count(machine, outcome, last)
  if outcome == 'n' or not rules.enabled then
    return
  end
  local part = bucket(machine)
  part[1] = part[1] + 1
  if outcome == 's' then
    machine.failures = 0
    return
  end
  part[2] = part[2] + 1
  machine.failures = machine.failures + 1
  local calls, failed = 0, 0
  for _, counts in pairs(machine.buckets) do
    calls, failed = calls + counts[1], failed + counts[2]
  end
  if machine.failures >= rules.consecutive_failures then
    move(machine, 'open', string.format('%d failures in a row: %s', machine.failures, last))
  elseif calls >= rules.minimum_calls and failed * 100 >= rules.failure_percent * calls then
    move(machine, 'open', string.format('%d of %d calls failed in %d s: %s', failed, calls,
      rules.window_s, last))
  end
end

local function try(machine, token, outcome, last)
  local expiry = machine.permits[token] or 0
  machine.permits[token] = nil
  if expiry <= now or outcome == 'n' then
    return
  end
  if outcome == 'f' then
    move(machine, 'open', 'a trial call failed: ' .. last)
    return
  end
  machine.successes = machine.successes + 1
  if machine.successes >= rules.close_after_successes then
    move(machine, 'closed', string.format('%d trial calls succeeded', machine.successes))
  end
end

local function record(machine, generation, token, outcomes, last)
  for i = 1, #outcomes do
    if generation ~= machine.generation then
      return
    end
    local outcome = string.sub(outcomes, i, i)
    if machine.state == 'closed' then
      count(machine, outcome, last)
    elseif machine.state == 'half_open' then
      try(machine, token, outcome, last)
    end
  end
end

local function follow(machine, order, action)
  if order <= machine.order then
    return
  end
  machine.order = order
  if action == 'open' then
    move(machine, 'open', 'opened by hand')
    machine.held = 1
  elseif action == 'reset' then
    move(machine, 'closed', 'reset by hand')
    machine.paused = 0
  elseif machine.state ~= 'closed' then
    move(machine, 'closed', 'closed by hand')
  end
end

local function work(machine, todo)
  local granted = 0
  for _, one in ipairs(todo) do
    if one[1] == 'a' then
      granted = acquire(machine, one[2], one[3])
    elseif one[1] == 'w' then
      if one[2] == machine.generation and (machine.permits[one[3]] or 0) > now then
        machine.permits[one[3]] = now + one[4]
      end
    elseif one[1] == 'r' then
      record(machine, one[2], one[3], one[4], one[5])
    elseif one[1] == 'p' then
      machine.paused = math.max(machine.paused, now + one[2])
    elseif one[1] == 'o' then
      follow(machine, one[2], one[3])
    end
  end
  return granted
end

local reply = {whole(now)}
for i, key in ipairs(KEYS) do
  local machine = load_machine(key)
  local generation, paused = machine.generation, machine.paused
  local todo = cjson.decode(ARGV[4 + i])
  local granted = work(machine, todo)
  local told = {machine.state, whole(machine.generation), whole(machine.since), machine.held,
    whole(machine.paused), granted, machine.reason, machine.who}
  if #todo > 0 then
    save_machine(key, machine)
  end
  if generation ~= machine.generation or paused ~= machine.paused then
    redis.call('PUBLISH', ARGV[2], cjson.encode({key, told[1], told[2], told[3], told[4],
      told[5], told[7], told[8]}))
  end
  reply[i + 1] = told
end
return reply
