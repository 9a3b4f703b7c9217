"""What the Redis broker has Redis do: a few scripts, each done as one step.

Here lives how events stand in Redis. Under one prefix there are ``store``, a hash with
what there is to say of the whole; ``channels``, a sorted set with the last position of
each channel; and of each channel a stream, ``channel:<name>``. The streams go by
themselves when they are too old; the hash stays. Of a channel that a run feeds, or fed
a while ago, there is a hash, ``run:<name>``; and of all that go on, in the sorted set
``leases``, when they are taken for dead.

No position is used twice in one epoch, nor by two lives of a server: one that was
started again, or took over from another, can have lost what it had acknowledged. So the
first who speaks to it leaves out a great many positions. Whoever knows of a position
that was left out knows that something is lost, and that begins another epoch.

A server's life has a name: the server's own, which INFO tells; or where that is not to
be had, a mark, which is the name of a script that the server keeps in its memory alone.

A key can go back while the server lives (RESTORE). The store, the index and a channel's
stream tell that by one another: the newest position stands in all three.
"""

from __future__ import annotations

import hashlib

# What every script begins with. ARGV: a name for a new epoch; the life of the server
# that is spoken to, by its own name, or as "mark:<it> <the one that is gone>", or
# nothing; history and age in seconds, or nothing; whether they are to hold from now on;
# the newest position that the caller knows, as epoch and number.
#
# ``format`` is the number of how all this stands in Redis. A release that finds another
# reads what it can. ``sequence`` is the newest position, and ``last`` the newest that
# something stands at. ``holes`` are the positions left out: those between the two of
# each pair.
_BEGIN = """
local store, index = KEYS[1], KEYS[2]
local function whole(number) return string.format('%.0f', number) end
local found = redis.call('HMGET', store, 'epoch', 'sequence', 'last', 'forgotten',
    'history', 'age', 'server', 'holes', 'sampled', 'samples', 'aged', 'mark',
    'format')
local epoch, server, holes = found[1], found[7], found[8]
local sequence, last = tonumber(found[2] or 0), tonumber(found[3] or 0)
local forgotten = tonumber(found[4] or 0)
local history, age = found[5], found[6]
if not epoch then
    local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')
    sequence = tonumber(newest[2] or 0)
    epoch, last, forgotten, holes = ARGV[1], sequence, sequence, ''
    history, age, server = ARGV[3], ARGV[4], ''
    redis.call('HSET', store, 'epoch', epoch, 'sequence', whole(sequence),
        'last', whole(last), 'forgotten', whole(forgotten), 'history', history,
        'age', age, 'server', server, 'holes', holes)
end
local format = found[13]
if not format then
    format = '1'
    redis.call('HSET', store, 'format', format)
end
if ARGV[5] == '1' and (history ~= ARGV[3] or age ~= ARGV[4]) then
    history, age = ARGV[3], ARGV[4]
    redis.call('HSET', store, 'history', history, 'age', age)
end
local is_lost = false
local name, known, life = 'server', server, ARGV[2]
local is_another = life ~= '' and life ~= known
local mark, gone = string.match(life, '^mark:(%S+) (%S*)$')
if mark then
    name, known, life = 'mark', found[12] or '', mark
    -- Where it is neither, somebody else has made another one meanwhile.
    is_another = mark ~= known and (known == '' or known == gone)
end
if is_another then
    if known ~= '' then
        holes = holes .. whole(sequence) .. ' '
        sequence = sequence + 4294967296
        holes = holes .. whole(sequence) .. ';'
        is_lost = #holes > 1000
    end
    redis.call('HSET', store, name, life, 'sequence', whole(sequence), 'holes', holes)
end
if ARGV[6] == epoch then
    local seen = tonumber(ARGV[7])
    is_lost = is_lost or seen > sequence
    for low, high in string.gmatch(holes, '(%d+) (%d+);') do
        is_lost = is_lost or (seen > tonumber(low) and seen < tonumber(high))
    end
end
local function begin_anew()
    epoch, holes = ARGV[1], ''
    redis.call('HSET', store, 'epoch', epoch, 'holes', holes)
end
if is_lost then begin_anew() end
-- A position stands somewhere that the store does not know: the store went back.
local function go_behind(position)
    sequence, last = math.max(sequence, position), math.max(last, position)
    redis.call('HSET', store, 'sequence', whole(sequence), 'last', whole(last))
    begin_anew()
end
local function compare_index()
    local newest = redis.call('ZREVRANGE', index, 0, 0, 'WITHSCORES')[2]
    if newest and tonumber(newest) > last then
        go_behind(tonumber(newest))
    elseif newest and tonumber(newest) < last then
        -- The index went back. What it says of its channels is worth nothing.
        redis.call('DEL', index)
    end
end
history, age = tonumber(history), tonumber(age) * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step = math.max(100, math.floor(age / 8))
local life = math.floor(age) + 2 * step
-- A key of another kind, which another program has put there, stops nobody else: it has
-- nothing of what is looked for.
local function fields_of(key, ...)
    local values = redis.pcall('HMGET', key, ...)
    return values.err and {} or values
end
local function newest_in(stream)
    return redis.pcall('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
end
local function newest_of(channel, stream, run)
    local newest = redis.call('ZSCORE', index, channel)
    if newest or redis.call('EXISTS', run) == 0 then return newest end
    local entry = newest_in(stream)
    return entry and string.match(entry[1], '%d+')
end
"""

# An entry has its time, and the position of what stood before it in its channel, or of
# the last that is forgotten: the first that remains says up to where all is gone.
#
# ``samples`` are moments, each with the position that was the newest then: they say
# which positions are too old. What is too old or too much goes when it is cheap; until
# then, logs leave it out. What is of a run goes when its process says that it may.
#
# ``how`` is nothing; or "say" for a run, "begin" for a new one, or for one that began
# at ``seen`` and may be lost here; "lost" where there may be one whose process is dead;
# "unknown" where there may be none, and readers that have come to ``seen`` wait for its
# end. ``told`` is what comes right before an end.
_PUT = """
local stream, run, leases = KEYS[3], KEYS[4], KEYS[5]
local channel, body, topic = ARGV[8], ARGV[9], ARGV[10]
local how, token, dropped = ARGV[11], ARGV[12], tonumber(ARGV[13])
local lease, told = tonumber(ARGV[14]), ARGV[15]
local seen_epoch, seen = ARGV[16], tonumber(ARGV[17])
local runner = fields_of(run, 'token', 'ended', 'start')
local is_held, goes_on = runner[1], runner[1] and not runner[2]
if how == 'say' and not (goes_on and runner[1] == token) then return {epoch} end
local function is_end(entry) return entry and entry[2][6] == '' end
local function hold(start)
    redis.call('DEL', run)
    redis.call('HSET', run, 'token', token, 'start', start, 'budget', body)
    redis.call('ZADD', leases, whole(now + lease), channel)
end
local is_lost = false
if goes_on and (how == 'begin' or how == 'lost') then
    local ends = redis.call('ZSCORE', leases, channel)
    if ends then is_lost = tonumber(ends) <= now
    else redis.call('ZADD', leases, whole(now + lease), channel) end
end
if how == 'begin' then
    local start = ARGV[17]
    if runner[1] == token and (tonumber(runner[3] or 0) or 0) <= sequence then
        if not goes_on then return {epoch} end
        redis.call('ZADD', leases, whole(now + lease), channel)
        return {epoch, runner[3]}
    end
    if runner[1] == token then
        is_lost = false
    elseif is_held and seen_epoch ~= '' or goes_on and not is_lost then
        return {epoch}
    elseif seen_epoch == epoch and seen <= sequence then
        local said = redis.call('XRANGE', stream, '(' .. start .. '-0', '+')
        for _, entry in ipairs(said) do
            if is_end(entry) then return {epoch} end
        end
        life = math.max(life, 4 * lease)
        hold(start)
        redis.call('PEXPIRE', run, whole(life))
        redis.call('PEXPIRE', stream, whole(life))
        return {epoch, start}
    end
end
if how == 'lost' and not is_lost then
    if not goes_on then redis.call('ZREM', leases, channel) end
    return {epoch}
end
if how == 'unknown' then
    local newest = tonumber(newest_of(channel, stream, run) or 0)
    local entry = newest_in(stream)
    if goes_on or seen_epoch ~= epoch or newest > seen or is_end(entry) then
        return {epoch}
    end
    redis.call('ZREM', leases, channel)
    how, is_lost = 'lost', true
end
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
if is_moment then compare_index() end
local before = newest_of(channel, stream, run)
if before and tonumber(before) > last then go_behind(tonumber(before)) end
if not before then
    if last > forgotten and redis.call('EXISTS', index) == 0 then
        forgotten = last
        redis.call('HSET', store, 'forgotten', whole(forgotten))
    end
    before = whole(forgotten)
end
local function put(body)
    local id = whole(sequence + 1)
    local function add()
        if is_held then
            return redis.pcall('XADD', stream, id .. '-0',
                'p', before, 't', whole(now), 'b', body)
        end
        return redis.pcall('XADD', stream, 'MAXLEN', '~', whole(history), id .. '-0',
            'p', before, 't', whole(now), 'b', body)
    end
    local added = add()
    local function is_refused()
        local is_error = type(added) == 'table' and added.err
        return is_error and string.find(added.err, 'smaller')
    end
    if is_refused() then
        local top = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
        local position = tonumber(top and string.match(top[1], '%d+') or 0)
        if position > sequence and position < 4503599627370496 then
            go_behind(position)
            id = whole(sequence + 1)
            added = add()
        end
    end
    if is_refused() then
        redis.call('DEL', stream)
        added = add()
    end
    if type(added) == 'table' and added.err then return added end
    sequence, before = sequence + 1, id
    redis.call('HSET', store, 'sequence', id, 'last', id)
    redis.call('ZADD', index, id, channel)
    local position = epoch .. ' ' .. id
    redis.call('PUBLISH', topic, position .. '\\n' .. channel .. '\\n' .. body)
    if body == '' and goes_on then
        goes_on = false
        redis.call('HSET', run, 'ended', whole(now))
        redis.call('PEXPIRE', run, whole(life))
        redis.call('ZREM', leases, channel)
    end
    return {epoch, id}
end
local answer = {}
if is_lost or how == 'say' and told ~= '' then answer = put(told) end
if answer.err then return answer end
if is_lost then answer = put('') end
if how == 'begin' then is_held = true end
if how ~= 'lost' then answer = put(body) end
if answer.err then return answer end
if how == 'begin' then
    hold(answer[2])
    goes_on = true
end
if is_held then
    if dropped > 0 then
        redis.call('XTRIM', stream, 'MINID', '~', whole(dropped + 1))
    end
elseif aged > 0 then
    redis.call('XTRIM', stream, 'MINID', '~', whole(aged + 1))
end
if goes_on then
    life = math.max(life, 4 * lease)
    redis.call('PEXPIRE', run, whole(life))
end
redis.call('PEXPIRE', stream, whole(life))
if is_moment then redis.call('PEXPIRE', index, whole(2 * life)) end
return answer
"""

# What stands behind a position in some channels, and the last position of each that
# something stood at; and of the last run there, where it began and its budget.
_GET = """
compare_index()
if last > forgotten and redis.call('EXISTS', index) == 0 then forgotten = last end
local after, channels = tonumber(ARGV[8]), {}
local count = (#KEYS - 2) / 2
for number = 3, count + 2 do
    local run = KEYS[number + count]
    local newest = newest_of(ARGV[number + 6], KEYS[number], run)
    local entries = {}
    if not newest or tonumber(newest) > after then
        entries = redis.pcall('XRANGE', KEYS[number], '(' .. ARGV[8] .. '-0', '+')
        if entries.err then newest, entries = whole(last), {} end
    end
    local top = entries[#entries]
    if newest and top and tonumber(string.match(top[1], '%d+')) < tonumber(newest) then
        entries = {} -- The stream went back: some of its end is missing.
    end
    local began = fields_of(run, 'start', 'budget')
    channels[number - 2] = {newest or whole(forgotten), entries, began[1] or '0',
        began[2] or '0'}
end
return {epoch, whole(sequence), history, tostring(age / 1000), holes, whole(now),
    channels, format}
"""

# How many entries some channels have, for how many seconds the newest has stood there,
# and how long it is.
_SURVEY = """
local channels = {}
for number = 3, #KEYS do
    local newest = newest_in(KEYS[number])
    if newest then
        local at = tonumber(newest[2][4] or '') or now
        channels[number - 2] = {redis.call('XLEN', KEYS[number]),
            tostring((now - at) / 1000), #(newest[2][6] or 'x')}
    else
        channels[number - 2] = {0, '0', 0}
    end
end
return {history, tostring(age / 1000), channels}
"""

# Have runs go on. ARGV: for how long; and of each its channel and its token. The keys
# of each are its hash and its stream. Which of them are known is returned. (One that
# began at a position which is still to come is of a life before.)
_EXTEND = """
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

# Which runs may have lost their process. ARGV: the time that it is to be, in
# milliseconds, or 0; and how long a lease holds. Where somebody has set the clock, each
# lease begins anew: by the new time it would be over at once, or hold for hours.
_LOST = """
local leases, expected, lease = KEYS[3], tonumber(ARGV[8]), tonumber(ARGV[9])
if expected > 0 and math.abs(now - expected) > lease / 2 then
    for _, channel in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
        redis.call('ZADD', leases, whole(now + lease), channel)
    end
end
return {whole(now),
    redis.call('ZRANGEBYSCORE', leases, '-inf', whole(now), 'LIMIT', 0, 64)}
"""

# In which channels no run goes on. ARGV: how long a lease holds, and the channels; the
# keys are the hashes of their runs. A run without a lease gets one.
_UNKNOWN = """
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
_COUNT = """
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


class Script:
    """A script, and the name that Redis knows it by."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.name = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


put = Script(_BEGIN + _PUT)
get = Script(_BEGIN + _GET)
survey = Script(_BEGIN + _SURVEY)
extend = Script(_BEGIN + _EXTEND)
lost = Script(_BEGIN + _LOST)
unknown = Script(_BEGIN + _UNKNOWN)
count = Script(_BEGIN + _COUNT)
