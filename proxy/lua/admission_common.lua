-- Shared by the scripts of admission; put in front of each. All numbers are integers.

local function text(number)
  return string.format('%.0f', number + 0)  -- never "-0", which is no integer to Redis
end

-- The numbers that the worker packed (proxy/admission_wire.py): doubles, little-endian.
local function numbers(packed)
  return {struct.unpack('<' .. string.rep('d', #packed / 8), packed)}
end

-- A window's second: requests, tokens, moment (ms) of the last request.
local function entry_of(entry)
  local requests, tokens, last = string.match(entry, '(%d+) (%-?%d+) (%d+)')
  return tonumber(requests), tonumber(tokens), tonumber(last)
end

local function entry_text(requests, tokens, last)
  return string.format('%d %d %d', requests, tokens, last)
end

-- How long a calendar period's counter is kept: until so long after its end. 0: for ever.
local function life_s(end_ms, kept_s, now_ms)
  return end_ms > now_ms and math.floor((end_ms - now_ms) / 1000) + kept_s or kept_s
end

-- The present moment. The last argument of every script is "", or a moment of a drill.
local function server_ms()
  if ARGV[#ARGV] ~= '' then
    return tonumber(ARGV[#ARGV])
  end
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end

-- Drops what a rolling budget no longer counts: buckets that ended before its hours began.
local function roll(key, bucket_s, now_ms)
  local oldest = tonumber(redis.call('HGET', key, 'o'))
  if not oldest then
    return
  end
  local first = math.floor(now_ms / 1000 / bucket_s) - 60
  if oldest >= first then
    return
  end
  local gone = 0
  if first - oldest > 240 then
    -- Nobody looked for a long time: look at what is there instead of at every index.
    for _, name in ipairs(redis.call('HKEYS', key)) do
      local index = tonumber(string.match(name, '^b(%d+)$'))
      if index and index < first then
        gone = gone + tonumber(redis.call('HGET', key, name))
        redis.call('HDEL', key, name)
      end
    end
  else
    for index = oldest, first - 1 do
      local name = 'b' .. text(index)
      local spent = redis.call('HGET', key, name)
      if spent then
        gone = gone + tonumber(spent)
        redis.call('HDEL', key, name)
      end
    end
  end
  redis.call('HINCRBY', key, 's', text(-gone))
  redis.call('HSET', key, 'o', text(first))
end

-- Adds what was spent; a bucket that is no longer counted takes nothing.
local function spend(key, nano, bucket, bucket_s, end_ms, kept_s, now_ms)
  if bucket >= 0 then
    if bucket < math.floor(now_ms / 1000 / bucket_s) - 60 then
      return
    end
    redis.call('HINCRBY', key, 'b' .. text(bucket), nano)
    local oldest = tonumber(redis.call('HGET', key, 'o'))
    if not oldest or bucket < oldest then
      redis.call('HSET', key, 'o', text(bucket))
    end
  end
  local spent = redis.call('HINCRBY', key, 's', nano)
  if kept_s > 0 and (bucket >= 0 or (spent == nano and redis.call('TTL', key) == -1)) then
    redis.call('EXPIRE', key, life_s(end_ms, kept_s, now_ms))
  end
end

-- Gives back what a request had reserved of a budget.
local function release(key, nano)
  if nano == 0 then
    return
  end
  if redis.call('HINCRBY', key, 'h', text(-nano)) < 0 then
    -- The counter is gone, or was built anew meanwhile.
    if redis.call('HLEN', key) == 1 then
      redis.call('DEL', key)
    else
      redis.call('HSET', key, 'h', '0')
    end
  end
end
