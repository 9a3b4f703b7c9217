"""The scripts by which processes keep their runs alive, end runs that are lost, and
tell how many streams they serve."""

from __future__ import annotations

# Extend the leases of runs. ARGV: how long a lease holds; and of each run its channel
# and its token. KEYS: of each run its hash and its stream. The answer says which of the
# runs are known. (A run that began at a position still to come is of an earlier life.)
EXTEND = """
local leases, lease, known = KEYS[3], tonumber(ARGV[8]), {}
life = math.max(life, 4 * lease)
for number = 1, (#KEYS - 3) / 2 do
    local run, stream = KEYS[2 * number + 2], KEYS[2 * number + 3]
    local channel, token = ARGV[2 * number + 7], ARGV[2 * number + 8]
    local found = fields_of(run, 'token', 'ended', 'start')
    known[number] = 0
    if found[1] == token and (tonumber(found[3] or 0) or 0) <= sequence then
        known[number] = 1
    end
    if found[1] == token and not found[2] then
        redis.call('ZADD', leases, whole(now + lease), channel)
        redis.call('PEXPIRE', run, whole(life))
        redis.call('PEXPIRE', stream, whole(life))
    end
end
return {epoch, known}
"""

# The channels of runs whose lease is over. ARGV: the time that the caller expects, in
# milliseconds, or 0; and how long a lease holds. If somebody has set the clock, each
# lease begins anew: by the new time it would be over at once, or hold for hours.
LOST = """
local leases, expected, lease = KEYS[3], tonumber(ARGV[8]), tonumber(ARGV[9])
if expected > 0 and math.abs(now - expected) > lease / 2 then
    for _, channel in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
        redis.call('ZADD', leases, whole(now + lease), channel)
    end
end
return {whole(now),
    redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', 0, 64)}
"""

# In which channels no run goes on. ARGV: how long a lease holds, and the channels.
# KEYS: the hashes of their runs. A run without a lease gets one.
UNKNOWN = """
local leases, lease, answer = KEYS[3], tonumber(ARGV[8]), {}
for number = 1, #KEYS - 3 do
    local run, channel = KEYS[number + 3], ARGV[number + 8]
    local found = fields_of(run, 'token', 'ended')
    if found[1] and not found[2] then
        answer[number] = 0
        if not redis.call('ZSCORE', leases, channel) then
            redis.call('ZADD', leases, whole(now + lease), channel)
        end
    else
        answer[number] = 1
    end
end
return answer
"""

# Note how many streams of which channels a process serves. ARGV: for how long that
# holds, the process, and of each channel its name and the number.
COUNT = """
local processes, counts, valid = KEYS[3], KEYS[4], tonumber(ARGV[8])
redis.call('DEL', counts)
for number = 10, #ARGV, 1000 do
    redis.call('HSET', counts, unpack(ARGV, number, math.min(number + 999, #ARGV)))
end
redis.call('PEXPIRE', counts, whole(valid))
redis.call('ZREMRANGEBYSCORE', processes, '-inf', whole(now))
redis.call('ZADD', processes, whole(now + valid), ARGV[9])
redis.call('PEXPIRE', processes, whole(valid))
"""
