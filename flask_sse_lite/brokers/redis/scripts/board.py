"""The scripts by which processes tell whose streams they serve, and who was told to
have come or left."""

from __future__ import annotations

from .events import AFTER_PUTTING, PUTTING

# Note whose streams a process serves. ARGV: for how long that holds; "1" if all that
# was noted is replaced; and of each channel its name and its identities, as JSON, or
# nothing where the channel has none any more. The answer is 0 where the process was
# forgotten, so that it must note all.
WHO = """
local who, valid, is_all = KEYS[3], tonumber(ARGV[8]), ARGV[9] == '1'
if is_all then redis.call('DEL', who)
elseif redis.call('EXISTS', who) == 0 then return 0 end
for number = 10, #ARGV, 2 do
    if ARGV[number + 1] == '' then redis.call('HDEL', who, ARGV[number])
    else redis.call('HSET', who, ARGV[number], ARGV[number + 1]) end
end
redis.call('PEXPIRE', who, whole(valid))
return 1
"""

# Whose turn it is, and what there is to look at. ARGV: the process that asks, and how
# long its turn holds; how long behind that what is told holds; when a turn is extended;
# and "1" if the process asks out of turn. The answer is empty where it is the turn of
# another process. Otherwise it has the time, the number, whether what is told has
# lapsed, the processes that live, the channels in which somebody is told, and whether
# the process has the turn.
ROLL = """
local processes, turn, channels = KEYS[3], KEYS[4], KEYS[5]
local process, valid, after = ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local early, is_urgent = tonumber(ARGV[11]), ARGV[12] == '1'
local found = fields_of(turn, 'number', 'process', 'lease', 'holds')
local lease, until_then = tonumber(found[3] or 0) or 0, tonumber(found[4] or 0) or 0
-- What holds for much too long was noted before somebody set the clock back.
local is_taken = lease > now and lease <= now + 2 * valid
local holds = until_then > now and until_then <= now + 2 * valid + after
local is_others = is_taken and found[2] ~= process
if is_others and not (is_urgent and holds) then return {} end
local told = redis.call('SMEMBERS', channels)
local living = redis.call('ZRANGEBYSCORE', processes, whole(now), '+inf')
local is_lapsed = #told > 0 and not holds
if not is_others and #told + #living > 0 then
    if not is_taken or lease < now + early then
        redis.call('HSET', turn, 'process', process, 'lease', whole(now + valid))
        lease = now + valid
    end
    if not is_lapsed and until_then < lease + after then
        redis.call('HSET', turn, 'holds', whole(lease + after))
    end
end
local has_turn = not is_others and 1 or 0
return {whole(now), found[1] or '0', is_lapsed and 1 or 0, living, told, has_turn}
"""

# Who is told in some channels, and whether that holds. KEYS: whose turn it is, and of
# each channel the hash of the told.
TOLD = """
local answer = {}
for number = 4, #KEYS do
    local found = redis.pcall('HGETALL', KEYS[number])
    answer[number - 3] = found.err and {} or found
end
local holds = tonumber(fields_of(KEYS[3], 'holds')[1] or 0) or 0
return {answer, holds > now and 1 or 0}
"""

# Put the events that say who came and left, and note it. ARGV, behind those of PUT: the
# number that the caller has seen; "1" if it has seen somebody noted there; and of each
# identity its name, the time since which it is away, "1" if it is told, and the event's
# body. Each can be empty but the name. If there is no identity, nobody is told there.
# The answer has only the epoch, and nothing is done, if somebody has told something
# since the caller looked, or if Redis has lost what the caller has seen.
# An event is noted as soon as it is put: what fails then is told later.
_TELL = """
local turn, noted, channels = KEYS[6], KEYS[7], KEYS[8]
if (redis.call('HGET', turn, 'number') or '0') ~= ARGV[18] then return {epoch} end
if ARGV[19] == '1' and redis.call('EXISTS', noted) == 0 then return {epoch} end
redis.call('HINCRBY', turn, 'number', 1)
redis.call('SADD', channels, channel)
local is_closed, answer = is_end(newest_in(stream)), {epoch, {}}
for number = 20, #ARGV, 4 do
    local identity, since, is_told = ARGV[number], ARGV[number + 1], ARGV[number + 2]
    if ARGV[number + 3] ~= '' and not is_closed then
        local added = put(ARGV[number + 3])
        if added.err then return added end
        answer[2][#answer[2] + 1] = added[2]
    end
    if is_told == '1' then redis.call('HSET', noted, identity, since)
    else redis.call('HDEL', noted, identity) end
end
if #ARGV < 20 or redis.call('EXISTS', noted) == 0 then
    redis.call('SREM', channels, channel)
end
"""

TELL = PUTTING + _TELL + AFTER_PUTTING
