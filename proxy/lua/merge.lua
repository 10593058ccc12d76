-- Adds to the sliding windows what a worker admitted while it counted alone.
-- KEYS: windows
-- ARGV: JSON per window [[second, requests, tokens, moment (ms) of the last one], ...]
-- Answers how many requests were added.
local now_ms, added = server_ms(), 0
for k, buckets in ipairs(cjson.decode(ARGV[1])) do
  local key = KEYS[k]
  for _, bucket in ipairs(buckets) do
    if bucket[4] > now_ms - 60000 then
      local i = text(bucket[1])
      redis.call('HINCRBY', key, 'r', text(bucket[2]))
      redis.call('HINCRBY', key, 't', text(bucket[3]))
      redis.call('HINCRBY', key, 'r' .. i, text(bucket[2]))
      redis.call('HINCRBY', key, 't' .. i, text(bucket[3]))
      local last = tonumber(redis.call('HGET', key, 'm' .. i)) or 0
      redis.call('HSET', key, 'm' .. i, text(math.max(last, bucket[4])))
      local oldest = tonumber(redis.call('HGET', key, 'o'))
      if not oldest or bucket[1] < oldest then
        redis.call('HSET', key, 'o', i)
      end
      redis.call('EXPIRE', key, '120')
      added = added + bucket[2]
    end
  end
end
return added
