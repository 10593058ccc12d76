-- Ends one abandoned hold; what its lost settlement had to do is done here, once.
-- KEYS: epoch, abandoned list, one budget hash per change
-- ARGV: the hold as it stands in the list, epoch it is settled in ("": nothing to settle),
--       then per change: nano-dollars, rolling bucket or "", bucket's width (s) or ""
-- Answers whether the hold was still there.
if redis.call('LREM', KEYS[2], 1, ARGV[1]) == 0 then
  return 0
end
if ARGV[2] == '' or redis.call('GET', KEYS[1]) ~= ARGV[2] then
  return 1
end
local now_s = tonumber(redis.call('TIME')[1])
for i = 3, #KEYS do
  local key, a = KEYS[i], 3 + (i - 3) * 3
  local nano, bucket = ARGV[a], ARGV[a + 1]
  if redis.call('EXISTS', key) == 1 then
    -- The ledger has it and took it from p when it came: both go up, p to where it was.
    if bucket == '' then
      redis.call('HINCRBY', key, 's', nano)
    elseif tonumber(bucket) >= math.floor(now_s / tonumber(ARGV[a + 2])) - 60 then
      redis.call('HINCRBY', key, 's', nano)
      redis.call('HINCRBY', key, 'b' .. bucket, nano)
    end
    redis.call('HINCRBY', key, 'p', nano)
  end
end
return 1
