"""The scripts by which events are put, got and counted.

``PUTTING`` has what is done before an event is put, and the function that puts it.
``AFTER_PUTTING`` has what is done behind that.
"""

from __future__ import annotations

# An entry has its body ("b"), its time ("t"), and the position of the entry before it
# in its channel, or else the newest forgotten position ("p"). So the first entry that
# is left says up to where all is gone.
#
# ``samples`` are moments, each with the position that was the newest then: they say
# which positions are too old. Entries that are too old or too many are dropped when
# that is cheap; until then, logs leave them out. A run's entries are dropped up to
# ``dropped``, which its process says.
#
# ``how`` says what is put. It is empty for an ordinary event or end; "say" for one of a
# run; "begin" for the beginning of a run, which can have begun at ``seen`` before and
# be lost here. "lost" ends a run if its process is dead. "unknown" ends a channel if no
# run goes on there, for readers that have come to ``seen`` and wait for the end.
# ``told`` is the event that is put right before an end.
#
# The answer can ask the caller to weigh the store.
PUTTING = """
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
    sequence, before, written = sequence + 1, id, written + #body
    redis.call('HSET', store, 'sequence', id, 'last', id, 'written', whole(written))
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
"""

_PUT = """
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
"""

AFTER_PUTTING = """
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
if written >= weigh then
    redis.call('HSET', store, 'weigh', whole(written + limit / 32))
    local busy_until = tonumber(found[17] or 0)
    -- One process at a time, or each would drop what is too much.
    if weigh > 0 and (now >= busy_until or busy_until > now + 5000) then
        redis.call('HSET', store, 'weighing', whole(now + 5000))
        answer[3] = 'weigh'
    end
end
return answer
"""

PUT = PUTTING + _PUT + AFTER_PUTTING

# The entries after a position in some channels, and the last position of each channel;
# and of the last run there, where it began and its budget.
GET = """
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

# How many entries some channels have, how many seconds old the newest is, and how long
# its body is.
SURVEY = """
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
