-- Adds to the sliding windows what a worker admitted while it counted alone.
-- KEYS: windows
-- ARGV: JSON per window [[second, requests, tokens, moment (ms) of the last one], ...]
-- Answers how many requests were added.
local now_ms, added = server_ms(), 0
for k, buckets in ipairs(cjson.decode(ARGV[1])) do
  local key = KEYS[k]
  for _, bucket in ipairs(buckets) do
    local second, requests, tokens, last = unpack(bucket)
    if last > now_ms - 60000 then
      local made, used, latest = 0, 0, 0
      local entry = redis.call('HGET', key, text(second))
      if entry then
        made, used, latest = entry_of(entry)
      end
      redis.call('HINCRBY', key, 'r', text(requests))
      redis.call('HINCRBY', key, 't', text(tokens))
      redis.call('HSET', key, text(second),
                 entry_text(made + requests, used + tokens, math.max(latest, last)))
      local oldest = tonumber(redis.call('HGET', key, 'o'))
      if not oldest or second < oldest then
        redis.call('HSET', key, 'o', text(second))
        redis.call('HDEL', key, 'e')  -- what is older leaves earlier
      end
      redis.call('EXPIRE', key, 120)
      added = added + requests
    end
  end
end
return added
