"""Channel programs: what the kernel runs in Lua, in one transaction group (zfs-program(8)).

They undo nothing when they fail, so every step that can be is checked before
the first is made.
"""

from __future__ import annotations

from snaptx.storage.zfs.names import AUTOMATIC, MENU, TREE

LIST = (
    """
local tops = ...
tops = tops["argv"]
local function own(name, property)
    local value, source = zfs.get_prop(name, property)
    if source == name then return value end
    return ""
end
local found = {}
local function look(name)
    local one = {tree = own(name, "%TREE%"), snapshots = {}}
    if own(name, "%AUTOMATIC%") ~= "" then one.automatic = "on" end
    one.mountpoint = zfs.get_prop(name, "mountpoint")
    one.canmount = zfs.get_prop(name, "canmount")
    if zfs.get_prop(name, "%MENU%") then one.menu = "on" end
    one.readonly = zfs.get_prop(name, "readonly")
    one.origin = zfs.get_prop(name, "origin") or ""
    for snapshot in zfs.list.snapshots(name) do
        local each = {txg = zfs.get_prop(snapshot, "createtxg"), clones = {}, holds = {}}
        for tag in zfs.list.holds(snapshot) do each.holds[tag] = true end
        for clone in zfs.list.clones(snapshot) do each.clones[clone] = true end
        one.snapshots[snapshot] = each
    end
    found[name] = one
    for child in zfs.list.children(name) do
        if zfs.get_prop(child, "type") == "filesystem" then look(child) end
    end
end
for _, name in ipairs(tops) do
    if zfs.exists(name) then look(name) end
end
return found
""".replace("%TREE%", TREE)
    .replace("%MENU%", MENU)
    .replace("%AUTOMATIC%", AUTOMATIC)
)
"""Describe the datasets at and below the arguments."""

STEPS = """
local steps = ...
steps = steps["argv"]
local function each(act)
    for _, line in ipairs(steps) do
        local what, rest = string.match(line, "^(%a+)\\t(.*)$")
        local status = act(what, rest)
        if status ~= 0 then return {status = status, step = line} end
    end
end
local function split(text)
    return string.match(text, "^([^\\t]*)\\t([^\\t]*)\\t?(.*)$")
end
local function check(what, rest)
    if what == "promote" then return (zfs.check.promote(rest)) end
    return 0
end
local function make(what, rest)
    if what == "promote" then return (zfs.sync.promote(rest)) end
    if what == "destroy" then return (zfs.sync.destroy(rest)) end
    local name, one, other = split(rest)
    if what == "rename" then return (zfs.sync.rename_snapshot(name, one, other)) end
    if what == "inherit" then return (zfs.sync.inherit(name, one)) end
    return (zfs.sync.set_prop(name, one, other))
end
return each(check) or each(make) or 0
"""
"""Make the steps that the arguments name, words with tabs between; return which failed, and its errno."""
