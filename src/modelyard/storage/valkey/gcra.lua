-- GCRA (limits.gcra) in one atomic step, by the server's own clock.
--
-- KEYS[1]: the client. ARGV: nanoseconds between requests, nanoseconds of the whole burst, requests asked for.
-- Returns how many pass, and how much of the burst is spent then, in nanoseconds.
--
-- The state is the theoretical arrival time, as seconds and nanoseconds: Lua's numbers are doubles, and whole only up to
-- 2^53, which nanoseconds since 1970 are far beyond. The burst is at most 2^52 nanoseconds, so every sum here is exact.
local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000
local interval, depth, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local spent = 0
local arrival_s, arrival_ns = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if arrival_s then
  spent = (arrival_s - now_s) * 1e9 + (arrival_ns - now_ns)
end
-- A clock that jumped, or a limit that was just changed, neither locks a client out nor lets it through.
local kept = math.max(0, math.min(spent, depth))
local free = depth - kept
local passed = math.min(count, (free - math.fmod(free, interval)) / interval)
local after = kept + passed * interval

if after > 0 and (passed > 0 or kept ~= spent) then
  local s, ns = now_s + math.floor(after / 1e9), now_ns + math.fmod(after, 1e9)
  if ns >= 1e9 then
    s, ns = s + 1, ns - 1e9
  end
  -- Gone by itself once the burst is whole again.
  local lasts_ms = math.ceil(after / 1e6)
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', s, ns), 'PX', string.format('%.0f', lasts_ms))
end
return {passed, after}
