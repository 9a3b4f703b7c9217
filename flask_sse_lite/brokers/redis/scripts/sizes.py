"""The scripts that keep a store below ``SSE_HISTORY_BYTES``.

How much is written is counted by ``put``. When so much was written that the store can
be too large, one process is told to weigh it: it asks for the size of each channel, and
has the largest ones shed their oldest entries.
"""

from __future__ import annotations

# The limit, and how many bytes of memory some channels take, as Redis estimates it: -1
# where the command is forbidden.
SIZES = """
local sizes = {}
for number = 3, #KEYS do
    local size = redis.pcall('MEMORY', 'USAGE', KEYS[number])
    if type(size) == 'table' then size = -1 end
    sizes[number - 2] = size or 0
end
return {limit, sizes}
"""

# Drop some of the oldest entries of a channel. ARGV: how many bytes must go. The newest
# entry of the store stays, because its readers do not have it yet, and so does the end
# of a channel. The answer says how many bytes have gone.
SHED = """
local stream, excess = KEYS[3], tonumber(ARGV[8])
local newest = newest_in(stream)
if not newest then return 0 end
local stays = newest[2][6] == '' or newest[1] == whole(last) .. '-0'
local entries = redis.call('XRANGE', stream, '-', '+', 'COUNT', 100)
local count, gone = 0, 0
for _, entry in ipairs(entries) do
    if gone >= excess or stays and entry[1] == newest[1] then break end
    count = count + 1
    gone = gone + #(entry[2][6] or '') + 64
end
if count == 0 then return 0 end
redis.call('XTRIM', stream, 'MAXLEN', redis.call('XLEN', stream) - count)
return gone
"""

# The store has so many bytes now (ARGV), so that it must be weighed again when as much
# was written as is left to the limit.
WEIGHED = """
local left = math.max(limit - tonumber(ARGV[8]), limit / 32)
redis.call('HSET', store, 'weigh', whole(written + left), 'weighing', '0')
"""
