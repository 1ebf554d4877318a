# SPDX-License-Identifier: MIT
"""Negative controls: the shim with one check taken out of it, each of which the fuzzer has to find.

Some checks are not here: another stands behind each, and nothing can be seen of its loss.

- That the range found begins at or below the id: only a writer who breaks the rules makes it otherwise, and then no
  answer is believed.
- In a user's name, the number of digits, the largest id, and the place of the dash: the name that is formed in the end
  is compared whole.
- In a reply, that it reaches the number of addresses, and what that number is at most: its size is compared with what
  they come to, and on a 64-bit host that product does not wrap.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Control:
    """In `file`, `old` becomes `new`. `old` must be there once."""

    name: str
    target: str
    file: str
    old: str
    new: str = ""

    def apply(self, text: str) -> str:
        """ValueError: the check is not where it was, so that this control would prove nothing."""
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {count} times in {self.file}, not once: {self.old!r}")
        return text.replace(self.old, self.new)


def _table(file: str, checks: dict[str, tuple[str, str]]) -> list[Control]:
    return [Control(name, "table", file, old, new) for name, (old, new) in checks.items()]


def _reply(file: str, checks: dict[str, tuple[str, str]]) -> list[Control]:
    return [Control(name, "reply", file, old, new) for name, (old, new) in checks.items()]


SLOT = _table("slot.c", {
    "slot-holds-its-header": ("    if (slot->size < sizeof(struct slot_header))\n        return false;\n", ""),
    "section-starts-in-slot": ("offset > slot->size || offset % 4 != 0", "offset % 4 != 0"),
    "section-aligned": ("offset > slot->size || offset % 4 != 0", "offset > slot->size"),
    "section-ends-in-slot": (
        "    if ((uint64_t)capacity * record_size > slot->size - offset)\n        return false;\n", ""),
    "keys-power-of-two": (" && (keys->capacity & (keys->capacity - 1)) == 0;", ";"),
    "keys-all-taken": ("while (*step < keys->capacity) {", "while (keys->capacity != 0) {"),
    "keys-none": ("while (*step < keys->capacity) {", "while (true) {"),
    "key-hash": ("if (key == 0 || (key ^ hash) >> 24 == 0)", "if (true)"),
    "machine-nobody": ("|| machine == 0 || machine >= machines.capacity)", "|| machine >= machines.capacity)"),
    "machine-index": ("|| machine == 0 || machine >= machines.capacity)", "|| machine == 0)"),
    "details-index": (" || machine >= details.capacity)", ")"),
    "name-at-hand": ("if (kind == NAME_MACHINE && LOAD(record->name[0]) != '\\0') {", "if (kind == NAME_MACHINE) {"),
    "name-kind": ("        if ((kinds >> kind & 1) == 0)\n            continue;\n", ""),
    "name-longest": ("    if (length > text->longest)\n        return false;\n", ""),
    "name-whole": ("    if (memcmp(text->at, name, length + 1) == 0)", "    if (memcmp(text->at, name, length) == 0)"),
    "name-case": ("        if (lower_case(LOAD(text->at[i])) != name[i])", "        if (LOAD(text->at[i]) != name[i])"),
    "string-ends": ("    return copy[text->longest] == '\\0';", "    return true;"),
    "listed-room": ("    if (*count < capacity)\n        strcpy", "    strcpy"),
    "address-reverse": ("return address->family == family && (address->flags & ADDRESS_REVERSE) != 0 &&",
                        "return address->family == family &&"),
    "address-same-family": ("return address->family == family && (address", "return (address"),
    "address-same": (" &&\n           memcmp(address->bytes, bytes, family == AF_INET ? 4 : 16) == 0;", ";"),
    "address-family": (("        if (copy->family != AF_INET && copy->family != AF_INET6)\n"
                        "            return ANSWER_UNAVAILABLE;\n"), ""),
    "addresses-at-hand": ("    if (count > INET_AT_HAND)\n        return ANSWER_UNAVAILABLE;\n", ""),
    "addresses-index": ("if (index >= addresses.capacity || count >= MACHINE_ADDRESSES_MAX)",
                        "if (count >= MACHINE_ADDRESSES_MAX)"),
    "addresses-count": ("if (index >= addresses.capacity || count >= MACHINE_ADDRESSES_MAX)",
                        "if (index >= addresses.capacity)"),
    "ranges-none": ("    if (ranges.capacity == 0)\n        return ANSWER_UNKNOWN;\n", ""),
    "ranges-none-below": ("    if (from > host_id)\n        return NULL;\n", ""),
    "ranges-end": ("    if (to <= host_id)\n        return last;\n", ""),
    "range-length": ("    if (host_id - first >= LOAD(range->length))\n        return ANSWER_UNKNOWN;\n", ""),
    "range-last-id": ("    if (inside_first > ID_LAST - (host_id - first))\n        return ANSWER_UNAVAILABLE;\n", ""),
    "extent-kinds": (("(LOAD(record->extent_kinds) & (group ? EXTENT_OF_GIDS : EXTENT_OF_UIDS)) != 0 &&\n"
                      "        is_inside"), "is_inside"),
    "extent-index": ("index >= extents.capacity || steps >= extents.capacity", "steps >= extents.capacity"),
    "extent-circle": ("index >= extents.capacity || steps >= extents.capacity", "index >= extents.capacity"),
    "extent-begin": ("return inside_first <= inside_id && inside_id - inside_first < length;",
                     "return inside_id - inside_first < length;"),
    "extent-last-id": ("    if (host_first > ID_LAST - distance)\n        return ANSWER_UNAVAILABLE;\n", ""),
    "machine-has-a-name": (" || name[0] == '\\0')\n", ")\n"),
    "label-ends": ("{details->label, MACHINE_LABEL_MAX};", "{details->label, MACHINE_NAME_MAX};"),
})  # fmt: skip

ANSWER = _table("answer.c", {
    "asked-name-length": ("if (length == 0 || length > MACHINE_NAME_MAX)", "if (length == 0)"),
    "asked-name-empty": ("if (length == 0 || length > MACHINE_NAME_MAX)", "if (length > MACHINE_NAME_MAX)"),
    "asked-layout": ("    if (question->layout != PACKET_LAYOUT)\n        return ANSWER_UNAVAILABLE;\n", ""),
    "asked-family": ("question->family == AF_INET || question->family == AF_INET6;", "true;"),
    "asked-id-is-the-hosts": ("question->id >= HOST_ID_FIRST && question->id <= ID_LAST", "question->id <= ID_LAST"),
    "asked-id-is-none": ("question->id >= HOST_ID_FIRST && question->id <= ID_LAST", "question->id >= HOST_ID_FIRST"),
    "user-name-empty": ("if (length == 0 || 3 + length", "if (3 + length"),
    "user-name-length": (" || 3 + length + 1 + digits_length > USER_NAME_MAX || memchr", " || memchr"),
    "user-name-dot": (" || memchr(machine, '.', length) != NULL)", ")"),
    "user-id-is-the-hosts": (("    if (result == ANSWER_FOUND && id->host_id < HOST_ID_FIRST)\n"
                             "        result = ANSWER_UNKNOWN;\n"), ""),
    "user-one-name": (("    if (result == ANSWER_FOUND && strcmp(id->name, query->question->name) != 0)\n"
                      "        result = ANSWER_UNKNOWN;\n"), ""),
    "torn": ("__atomic_load_n(&header->begun, __ATOMIC_RELAXED) - done < TABLE_SLOTS &&", ""),
    "let-go": (" &&\n            __atomic_load_n(&header->layout, __ATOMIC_RELAXED) == TABLE_LAYOUT)", ")"),
})  # fmt: skip

VIEW = _table("view.c", {
    "file-magic": ("if (header->magic[i] != (uint8_t)TABLE_MAGIC[i])", "if (i == 0 && header->magic[i] == 0)"),
    "file-size": (" || header->file_size != map->size)", ")"),
    "slot-size": ("    if (map->slot_size > map->size)\n        return false;\n", ""),
    "slot-behind-header": ("map->slot_offset[i] < TABLE_PAGE || map->slot_offset[i] %", "map->slot_offset[i] %"),
    "slot-on-a-page": (" || map->slot_offset[i] % TABLE_PAGE != 0)", ")"),
    "slot-in-file": ("        if (map->slot_offset[i] > map->size - map->slot_size)\n            return false;\n", ""),
    "file-regular": ("return S_ISREG(st->st_mode) && ", "return "),
    "file-roots": (" && st->st_uid == owner", ""),
    "file-written-by-others": (" && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;", ";"),
    "file-roots-still": ("return same && is_owners(&st, view->owner) ?", "return same ?"),
    "file-another": ("st.st_dev == map->device && st.st_ino == map->inode && ", ""),
    "file-smallest": ("st.st_size < TABLE_PAGE || st.st_size > TABLE_SIZE_MAX", "st.st_size > TABLE_SIZE_MAX"),
    "file-largest": ("st.st_size < TABLE_PAGE || st.st_size > TABLE_SIZE_MAX", "st.st_size < TABLE_PAGE"),
    "open-flags": ("O_RDONLY | O_CLOEXEC | O_NOFOLLOW |", "O_RDONLY | O_CLOEXEC |"),
    "open-closed": ("    syscall(SYS_close, fd);\n", ""),
    "retired": ("    if (check_is_due(view) || is_retired(map))", "    if (check_is_due(view))"),
    "retired-still-there": ("result = is_retired(map) ? NULL : map;", "result = map;"),
    "checked-in-time": ("    if (check_is_due(view) || is_retired(map))", "    if (is_retired(map))"),
})  # fmt: skip

PACK = _table("pack.c", {
    "buffer-size": ("space->left < gap || space->left - gap < size", "space->left < gap"),
    "buffer-gap": ("space->left < gap || space->left - gap < size", "space->left - gap < size"),
    "buffer-aligned": ("-(uintptr_t)space->at & (alignment - 1)", "alignment & 0"),
    "host-name-fits": (" || bytes == NULL || name == NULL)", " || bytes == NULL)"),
    "scoped-left-out": (" && (address->flags & ADDRESS_SCOPED) == 0;", ";"),
})  # fmt: skip

ERRNO = _table("look_up.c", {
    "errno-kept": ("    errno = saved_errno;\n", "    (void)saved_errno;\n"),
})  # fmt: skip

ASK = _reply("ask.c", {
    "peer-is-root": ("length == sizeof peer && peer.uid == 0;", "length == sizeof peer;"),
    "reply-whole": ("(message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 ?", "message->msg_flags >= 0 ?"),
    "reply-layout": ("header.layout != PACKET_LAYOUT || header.kind != question->kind",
                     "header.kind != question->kind"),
    "reply-kind": ("header.layout != PACKET_LAYOUT || header.kind != question->kind",
                   "header.layout != PACKET_LAYOUT"),
    "reply-unknown-is-bare": ("header.result == ANSWER_UNKNOWN && rest == 0", "header.result == ANSWER_UNKNOWN"),
    "reply-result": ("    if (header.result != ANSWER_FOUND)\n        return ANSWER_UNAVAILABLE;\n", ""),
    "reply-string-ends": ("return length > 0 && length <= longest;", "return length > 0;"),
    "reply-string-empty": ("return length > 0 && length <= longest;", "return length <= longest;"),
    "reply-host-length": (("    if (length != fixed + host->address_count * sizeof host->addresses[0])\n"
                          "        return false;\n"), ""),
    "reply-family": (("        if (host->addresses[i].family != AF_INET && host->addresses[i].family != AF_INET6)\n"
                     "            return false;\n"), "            ;\n"),
    "reply-one-address": ("return host->address_count == 1 && ", "return "),
    "reply-this-family": ("host->addresses[0].family == question->family &&\n", "\n"),
    "reply-this-address": (("&&\n           memcmp(host->addresses[0].bytes, question->bytes, "
                           "question->family == AF_INET ? 4 : 16) == 0;"), ";"),
    "reply-id-length": ("if (length != sizeof *id || !is_string(id->machine", "if (!is_string(id->machine"),
    "reply-id-first": ("id->host_id < HOST_ID_FIRST || ", ""),
    "reply-id-last": (" || id->host_id > ID_LAST", ""),
    "reply-id-inside": (" || id->inside_id > ID_LAST)", ")"),
    "reply-this-id": ("return id->host_id == question->id;", "return true;"),
    "reply-this-name": ("return strcmp(id->name, question->name) == 0;", "return true;"),
    "deadline": ("const int ready = left > 0 ? poll(&readable, 1, (int)left) : 0;",
                 "const int ready = poll(&readable, 1, left > 0 ? (int)left : 1);"),
    "socket-closed": ("        close(fd);\n", ""),
    "signals-do-not-end-it": ("if (errno != EINTR && errno != EAGAIN)", "if (errno != EAGAIN)"),
})  # fmt: skip

CONTROLS = [*SLOT, *ANSWER, *VIEW, *PACK, *ERRNO, *ASK]
