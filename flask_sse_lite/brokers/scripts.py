"""What the Redis broker has Redis do: three scripts, each done as one step.

Here lives how events stand in Redis. Under one prefix there are ``store``, a hash with
what there is to say of the whole; ``channels``, a sorted set with the last position of
each channel; and of each channel a stream, ``channel:<name>``. The streams go by
themselves when they are too old; the hash stays.

No position is used twice in one epoch, nor by two lives of a server: one that was
started again, or took over from another, may have lost what it had acknowledged. So the
first who speaks to it leaves out a great many positions. Whoever knows of a position
that was left out knows that something is lost, and that begins another epoch.
"""

from __future__ import annotations

import hashlib

# What every script begins with. ARGV: a name for a new epoch; the life of the server
# that is spoken to; history and age in seconds, or nothing; whether they are to hold
# from now on; the newest position that the caller knows, as epoch and number.
#
# ``sequence`` is the newest position, and ``last`` the newest that something stands at.
# ``holes`` are the positions left out: those between the two of each pair.
_BEGIN = """
local store, index = KEYS[1], KEYS[2]
local function whole(number) return string.format('%.0f', number) end
local found = redis.call('HMGET', store, 'epoch', 'sequence', 'last', 'forgotten',
    'history', 'age', 'server', 'holes', 'sampled', 'samples', 'aged')
local epoch, server, holes = found[1], found[7], found[8]
local sequence, last = tonumber(found[2] or 0), tonumber(found[3] or 0)
local forgotten = tonumber(found[4] or 0)
local history, age = found[5], found[6]
if not epoch then
    local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
    sequence = tonumber(newest[2] or 0)
    epoch, last, forgotten, holes = ARGV[1], sequence, sequence, ''
    history, age, server = ARGV[3], ARGV[4], ARGV[2]
    redis.call('HSET', store, 'epoch', epoch, 'sequence', whole(sequence),
        'last', whole(last), 'forgotten', whole(forgotten), 'history', history,
        'age', age, 'server', server, 'holes', holes)
end
if ARGV[5] == '1' and (history ~= ARGV[3] or age ~= ARGV[4]) then
    history, age = ARGV[3], ARGV[4]
    redis.call('HSET', store, 'history', history, 'age', age)
end
local is_lost = false
if ARGV[2] ~= '' and ARGV[2] ~= server then
    if server ~= '' then
        holes = holes .. whole(sequence) .. ' '
        sequence = sequence + 4294967296
        holes = holes .. whole(sequence) .. ';'
        is_lost = #holes > 1000
    end
    redis.call('HSET', store, 'server', ARGV[2], 'sequence', whole(sequence),
        'holes', holes)
end
if ARGV[6] == epoch then
    local known = tonumber(ARGV[7])
    is_lost = is_lost or known > sequence
    for low, high in string.gmatch(holes, '(%d+) (%d+);') do
        is_lost = is_lost or (known > tonumber(low) and known < tonumber(high))
    end
end
if is_lost then
    epoch, holes = ARGV[1], ''
    redis.call('HSET', store, 'epoch', epoch, 'holes', holes)
end
history, age = tonumber(history), tonumber(age) * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# An entry has its time, and the position of what stood before it in its channel, or of
# the last that is forgotten: the first that remains says up to where all is gone.
#
# ``samples`` are moments, each with the position that was the newest then: they say
# which positions are too old. What is too old or too much goes when it is cheap; until
# then, logs leave it out.
_PUT = """
local stream, channel, body, topic = KEYS[3], ARGV[8], ARGV[9], ARGV[10]
local step = math.max(100, math.floor(age / 8))
local life = math.floor(age) + 2 * step
local sampled, aged = tonumber(found[9] or 0), tonumber(found[11] or 0)
local is_moment = now >= sampled + step or now < sampled
if is_moment then
    local kept, expired = '', 0
    for at, position in string.gmatch(found[10] or '', '(%d+) (%d+);') do
        at, position = tonumber(at), tonumber(position)
        if at <= now - age then aged = math.max(aged, position) end
        if at <= now - life then expired = position
        elseif at <= now then kept = kept .. whole(at) .. ' ' .. whole(position) .. ';'
        end
    end
    if expired > forgotten then
        forgotten = expired
        redis.call('ZREMRANGEBYSCORE', index, '-inf', whole(forgotten))
    end
    redis.call('HSET', store, 'sampled', whole(now), 'aged', whole(aged), 'forgotten',
        whole(forgotten), 'samples', kept .. whole(now) .. ' ' .. whole(last) .. ';')
end
local before = redis.call('ZSCORE', index, channel)
if not before then
    if last > forgotten and redis.call('EXISTS', index) == 0 then
        forgotten = last
        redis.call('HSET', store, 'forgotten', whole(forgotten))
    end
    before = whole(forgotten)
end
local id = whole(sequence + 1)
local function add()
    return redis.pcall('XADD', stream, 'MAXLEN', '~', whole(history), id .. '-0',
        'p', before, 't', whole(now), 'b', body)
end
local added = add()
if type(added) == 'table' and added.err and string.find(added.err, 'smaller') then
    redis.call('DEL', stream)
    added = add()
end
if type(added) == 'table' and added.err then return added end
redis.call('HSET', store, 'sequence', id, 'last', id)
redis.call('ZADD', index, id, channel)
if aged > 0 then redis.call('XTRIM', stream, 'MINID', '~', whole(aged + 1)) end
redis.call('PEXPIRE', stream, whole(life))
if is_moment then redis.call('PEXPIRE', index, whole(2 * life)) end
redis.call('PUBLISH', topic, epoch .. ' ' .. id .. '\\n' .. channel .. '\\n' .. body)
return {epoch, id}
"""

# What stands behind a position in some channels, and the last position of each that
# something stood at.
_GET = """
if last > forgotten and redis.call('EXISTS', index) == 0 then forgotten = last end
local after, channels = tonumber(ARGV[8]), {}
for number = 3, #KEYS do
    local newest = redis.call('ZSCORE', index, ARGV[number + 6])
    local entries = {}
    if not newest or tonumber(newest) > after then
        entries = redis.call('XRANGE', KEYS[number], '(' .. ARGV[8] .. '-0', '+')
    end
    channels[number - 2] = {newest or whole(forgotten), entries}
end
return {epoch, whole(sequence), history, tostring(age / 1000), holes, whole(now),
    channels}
"""

# How many entries some channels have, for how many seconds the newest has stood there,
# and how long it is.
_SURVEY = """
local channels = {}
for number = 3, #KEYS do
    local newest = redis.call('XREVRANGE', KEYS[number], '+', '-', 'COUNT', 1)[1]
    if newest then
        channels[number - 2] = {redis.call('XLEN', KEYS[number]),
            tostring((now - tonumber(newest[2][4])) / 1000), #newest[2][6]}
    else
        channels[number - 2] = {0, '0', 0}
    end
end
return {history, tostring(age / 1000), channels}
"""


class Script:
    """A script, and the name that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


put = Script(_BEGIN + _PUT)
get = Script(_BEGIN + _GET)
survey = Script(_BEGIN + _SURVEY)
