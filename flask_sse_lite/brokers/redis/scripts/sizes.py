"""The scripts that keep a store below ``SSE_HISTORY_BYTES``.

How much is written is counted by ``put``. When so much was written that the store can
be too large, one process is told to weigh it: it asks for the size of each channel, and
has the largest ones shed their oldest entries.
"""

from __future__ import annotations

# How many bytes of memory a channel takes, as Redis estimates it; -1 where the command
# is forbidden.
_SIZE_OF = """
local function size_of(stream)
    local size = redis.pcall('MEMORY', 'USAGE', stream)
    if type(size) == 'table' then return -1 end
    return size or 0
end
-- Nobody else is told to weigh, however many commands it takes.
local function still_weighing()
    redis.call('HSET', store, 'weighing', whole(now + 5000))
end
"""

# The limit, the sizes of some channels, and how much was written by now.
SIZES = (
    _SIZE_OF
    + """
still_weighing()
local sizes = {}
for number = 3, #KEYS do sizes[number - 2] = size_of(KEYS[number]) end
return {limit, sizes, written}
"""
)

# Drop some of the oldest entries of a channel. ARGV: how many bytes; which channel.
# The newest entry of the store stays, because its readers do not have it yet, and so
# does the end of a channel. An empty stream takes a kilobyte. It is deleted where the
# index knows its newest position. The answer says how many bytes have gone. Redis frees
# memory by blocks of entries, so the answer counts at least the entries' own bytes.
SHED = (
    _SIZE_OF
    + """
still_weighing()
local stream, excess = KEYS[3], tonumber(ARGV[8])
local newest = newest_in(stream)
if not newest then return 0 end
local stays = newest[2][6] == '' or newest[1] == whole(last) .. '-0'
local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', 100)
local count, gone, taken = 0, 0, 0
local size, length = size_of(stream), redis.call('XLEN', stream)
for _, entry in ipairs(entries) do
    if taken >= excess or stays and entry[1] == newest[1] then break end
    local own = #(entry[2][6] or '') + 64
    count, gone, taken = count + 1, gone + own, taken + math.max(own, size / length)
end
if count == 0 then return 0 end
local left = length - count
if left == 0 and redis.call('ZSCORE', index, ARGV[9]) then
    redis.call('DEL', stream)
else
    redis.call('XTRIM', stream, 'MAXLEN', left)
end
return math.max(gone, size - size_of(stream))
"""
)

# ARGV: the bytes that the store had, and how much had been written by then. The store
# must be weighed again when as much was written as is left to the limit. The answer
# says whether that is so already.
WEIGHED = """
local left = math.max(limit - tonumber(ARGV[8]), limit / 32)
local again_at = tonumber(ARGV[9]) + left
local is_due = written >= again_at
redis.call('HSET', store, 'weigh', whole(again_at),
    'weighing', is_due and whole(now + 5000) or '0')
return is_due and 1 or 0
"""
