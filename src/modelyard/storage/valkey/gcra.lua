-- GCRA (limits.gcra) in one atomic step, by the server's own clock.
--
-- KEYS[1]: the client. ARGV: nanoseconds between requests, nanoseconds of the whole burst, requests asked for.
-- Returns how many pass, and how much of the burst is spent then, in nanoseconds.
--
-- With a daily quota (limits.shares), KEYS[2]: the client's counts by UTC day. ARGV goes on: predictions a day, a day,
-- what the host knows to be used of it, and by how many that day's count is wrong. Returns beside that how many
-- predictions are set aside for those who pass, how many of the day are used then, and which day it is.
--
-- The state is the theoretical arrival time, as seconds and nanoseconds: Lua's numbers are doubles, and whole only up to
-- 2^53, which nanoseconds since 1970 are far beyond. The burst is at most 2^52 nanoseconds, so every sum here is exact.
local time = redis.call('TIME')
local now_s, now_ns = tonumber(time[1]), tonumber(time[2]) * 1000
local interval, depth, asked = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local spent = 0
local arrival_s, arrival_ns = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if arrival_s then
  spent = (arrival_s - now_s) * 1e9 + (arrival_ns - now_ns)
end
-- A clock that jumped, or a limit that was just changed, neither locks a client out nor lets it through.
local kept = math.max(0, math.min(spent, depth))
local free = depth - kept
local passed = math.min(asked, (free - math.fmod(free, interval)) / interval)
local after = kept + passed * interval

if after > 0 and (passed > 0 or kept ~= spent) then
  local s, ns = now_s + math.floor(after / 1e9), now_ns + math.fmod(after, 1e9)
  -- Gone by itself once the burst is whole again.
  local lasts_ms = math.ceil(after / 1e6)
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', s, ns), 'PX', string.format('%.0f', lasts_ms))
end
if not KEYS[2] then
  return {passed, after}
end

local quota, told, known, wrong = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local today, days = math.floor(now_s / 86400), KEYS[2]

local function count(day, number)
  redis.call('HSET', days, day, string.format('%.0f', number))
  -- Four days, as in limits.quota: a clock that is set a day or three on and back finds what it left.
  -- Between two writes the hash may have stood for as long again as it lasts, and days without any leave nothing behind.
  redis.call('HDEL', days, day - 4, day - 5, day - 6, day - 7, day - 8)
  redis.call('PEXPIRE', days, 4 * 86400 * 1000)
end

if math.abs(told - today) < 4 and (known > 0 or wrong ~= 0) then
  local counted = redis.call('HGET', days, told)
  if not counted then
    if known > 0 then
      count(told, known)
    end
  elseif wrong ~= 0 then
    count(told, math.max(0, counted + wrong))
  end
end
local used = tonumber(redis.call('HGET', days, today) or 0)
local reserved = math.min(passed, math.max(0, quota - used))
if reserved > 0 then
  used = used + reserved
  count(today, used)
end
return {passed, after, reserved, used, today}
