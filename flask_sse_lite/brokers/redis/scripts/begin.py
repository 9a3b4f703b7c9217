"""What every script begins with: the store's state, and whether it has gone back."""

from __future__ import annotations

# What every script begins with. ARGV: a name for a new epoch; the life of the server
# that the caller speaks to, as its own name, as "mark:<mark> <the mark before it>", or
# empty; the history; the age in seconds; the limit in bytes of all that is kept (with
# "same" the limit stays; with "" the history, the age and the limit stay); the newest
# position that the caller knows, as epoch and number.
#
# ``format`` is the number of the store's format. A release that finds another format
# reads what it can. ``sequence`` is the newest position, and ``last`` the newest one at
# which something stands. ``holes`` are the skipped positions: those between the two of
# each pair.
BEGIN = """
local store, index = KEYS[1], KEYS[2]
local function whole(number) return string.format('%.0f', number) end
local found = redis.call('HMGET', store, 'epoch', 'sequence', 'last', 'forgotten',
    'history', 'age', 'server', 'holes', 'sampled', 'samples', 'aged', 'mark',
    'format', 'bytes', 'written', 'weigh', 'weighing')
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
local bytes = found[14] or ''
local wanted = ARGV[5] == 'same' and bytes or ARGV[5]
if ARGV[5] ~= '' and (history ~= ARGV[3] or age ~= ARGV[4] or bytes ~= wanted) then
    history, age, bytes = ARGV[3], ARGV[4], wanted
    redis.call('HSET', store, 'history', history, 'age', age, 'bytes', bytes)
    found[16] = found[15] -- The limit can be lower than what there is.
end
local limit = tonumber(bytes) or 67108864
local written, weigh = tonumber(found[15] or 0), tonumber(found[16] or 0)
local is_lost = false
local name, known, life = 'server', server, ARGV[2]
local is_another = life ~= '' and life ~= known
local mark, gone = string.match(life, '^mark:(%S+) (%S*)$')
if mark then
    name, known, life = 'mark', found[12] or '', mark
    -- If it is neither, another process has made another mark meanwhile.
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
-- Some key has a position that the store does not know: the store went back.
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
        -- The index went back, so what it says of the channels can be wrong.
        redis.call('DEL', index)
    end
end
history, age = tonumber(history), tonumber(age) * 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step = math.max(100, math.floor(age / 8))
local life = math.floor(age) + 2 * step
-- A key of another kind, which another program has put there, counts as empty, so that
-- it stops nobody.
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
