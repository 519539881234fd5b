-- The version of a value, with which `put.lua` and `created.lua` begin. Values begin with their version, or are nothing
-- else: then a link of that version takes its place, as it does if the value has another encoding than the one that
-- workers of this release believe (`codec.py`). A malformed value has no version.
local function version(value)
    local digits, encoding = string.match(value, '^(%d+)(.?.?.?)')
    if not digits or #digits > 15 or not string.match(encoding, '^ ?$') and string.sub(encoding, 1, 1) ~= ' ' then
        return -1
    end
    return tonumber(digits) + (encoding == ' 2 ' and 0.5 or 0)
end
