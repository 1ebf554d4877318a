/* SPDX-License-Identifier: MIT */
#include "slot.h"

#include <string.h>
#include <sys/socket.h>

/* One load, which the compiler may neither split nor repeat: what was checked is what is used. */
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

struct records {
    const uint8_t *first;
    uint32_t capacity;
    uint32_t size;           /* of one record */
};

/* What each look-up does several times. With the record's size at hand, and without a call, it is a few instructions. */
#define INLINE static inline __attribute__((always_inline))

INLINE bool open_section(const struct slot *slot, size_t section_offset, uint32_t record_size, struct records *records)
{
    if (slot->size < sizeof(struct slot_header))
        return false;

    const struct section *section = (const void *)(slot->base + section_offset);
    const uint32_t offset = LOAD(section->offset);
    const uint32_t capacity = LOAD(section->capacity);

    if (offset > slot->size || offset % 4 != 0)
        return false;
    if ((uint64_t)capacity * record_size > slot->size - offset)
        return false;
    *records = (struct records){slot->base + offset, capacity, record_size};
    return true;
}

#define OPEN(slot, section, type, records) \
    open_section((slot), offsetof(struct slot_header, section), sizeof(type), (records))

static const void *record_at(const struct records *records, uint32_t index)
{
    return records->first + (size_t)index * records->size;
}

INLINE bool open_keys(const struct slot *slot, size_t section_offset, struct records *keys)
{
    return open_section(slot, section_offset, sizeof(uint32_t), keys) && (keys->capacity & (keys->capacity - 1)) == 0;
}

#define OPEN_KEYS(slot, section, keys) open_keys((slot), offsetof(struct slot_header, section), (keys))

/* The next key that may be of this hash, from `step` places behind the hash's own on; 0: there is none. All keys taken is
 * against the grammar, and no harm. */
INLINE uint32_t next_key(const struct records *keys, uint32_t hash, uint32_t *step)
{
    while (*step < keys->capacity) {
        const uint32_t place = (hash + *step) & (keys->capacity - 1);
        const uint32_t key = LOAD(*(const uint32_t *)record_at(keys, place));

        *step += 1;
        if (key == 0 || (key ^ hash) >> 24 == 0)
            return key;
    }
    return 0;
}

static uint32_t machine_of(uint32_t key)
{
    return key >> KEY_MACHINE_AT & (KEY_MACHINES - 1);
}

static const struct machine_record *machine_at(const struct slot *slot, uint32_t machine)
{
    struct records machines;

    if (!OPEN(slot, machines, struct machine_record, &machines) || machine == 0 || machine >= machines.capacity)
        return NULL;
    return record_at(&machines, machine);
}

static const struct detail_record *details_at(const struct slot *slot, uint32_t machine)
{
    struct records details;

    if (!OPEN(slot, details, struct detail_record, &details) || machine >= details.capacity)
        return NULL;
    return record_at(&details, machine);
}

/* A string of the table's: so many characters at the most, zeros behind it, and one there in any case. */
struct text {
    const char *at;
    uint32_t longest;
};

/* The machine's name of that kind. */
static bool find_text(const struct slot *slot, uint32_t machine, uint32_t kind, struct text *text)
{
    const struct machine_record *record = machine_at(slot, machine);

    if (record == NULL)
        return false;
    if (kind == NAME_MACHINE && LOAD(record->name[0]) != '\0') {
        *text = (struct text){record->name, NAME_AT_HAND};
        return true;
    }

    const struct detail_record *details = details_at(slot, machine);

    if (details == NULL)
        return false;
    if (kind == NAME_LABEL)
        *text = (struct text){details->label, MACHINE_LABEL_MAX};
    else
        *text = (struct text){kind == NAME_ALIAS ? details->alias : details->name, MACHINE_NAME_MAX};
    return true;
}

/* `name` is in lower case, a zero behind it. */
static bool is_same(const struct text *text, const char *name, uint32_t length)
{
    if (length > text->longest)
        return false;
    if (memcmp(text->at, name, length + 1) == 0)
        return true; /* for few are registered with capitals */
    for (uint32_t i = 0; i <= length; i++)
        if (lower_case(LOAD(text->at[i])) != name[i])
            return false;
    return true;
}

/* The copy is checked, not the original: the writer cannot take the zero away again behind the check. */
static bool copy_text(char *copy, const struct text *text)
{
    if (text->longest == NAME_AT_HAND)
        memcpy(copy, text->at, NAME_AT_HAND + 1); /* no call: two instructions */
    else
        memcpy(copy, text->at, text->longest + 1);
    return copy[text->longest] == '\0';
}

enum answer_result slot_find_name(const struct slot *slot, const char *name, uint32_t length, unsigned kinds,
                                  uint32_t *machine)
{
    const uint32_t hash = table_hash_name(name, length);
    struct records keys;
    struct text text;

    if (!OPEN_KEYS(slot, name_keys, &keys))
        return ANSWER_UNAVAILABLE;
    for (uint32_t step = 0, key; (key = next_key(&keys, hash, &step)) != 0;) {
        const uint32_t kind = key & ((1u << KEY_MACHINE_AT) - 1);

        if ((kinds >> kind & 1) == 0)
            continue;
        if (!find_text(slot, machine_of(key), kind, &text))
            return ANSWER_UNAVAILABLE;
        if (is_same(&text, name, length)) {
            *machine = machine_of(key);
            return ANSWER_FOUND;
        }
    }
    return ANSWER_UNKNOWN;
}

/* In lower case, and only where there is room for it. */
static bool list_name(const struct slot *slot, uint32_t machine, uint32_t kind, struct table_name *listed,
                      uint32_t capacity, uint32_t *count)
{
    struct table_name copy;
    struct text text;

    if (!find_text(slot, machine, kind, &text) || !copy_text(copy.name, &text))
        return false;
    if (copy.name[0] == '\0')
        return true;
    for (char *c = copy.name; *c != '\0'; c++)
        *c = lower_case(*c);
    if (*count < capacity)
        strcpy(listed[*count].name, copy.name);
    *count += 1;
    return true;
}

enum answer_result slot_list_names(const struct slot *slot, struct table_name *listed, uint32_t capacity, uint32_t *count)
{
    struct records machines;

    *count = 0;
    if (!OPEN(slot, machines, struct machine_record, &machines))
        return ANSWER_UNAVAILABLE;
    for (uint32_t machine = 1; machine < machines.capacity; machine++)
        if (!list_name(slot, machine, NAME_MACHINE, listed, capacity, count) ||
            !list_name(slot, machine, NAME_ALIAS, listed, capacity, count))
            return ANSWER_UNAVAILABLE;
    return ANSWER_FOUND;
}

/* The range that the id is in, else one that starts at or below it; NULL: none does.
 *
 * Machines' ids mostly lie one by one, or evenly at random, so where an id lies between the first and the last tells
 * where its range does: one guess instead of a dozen branches that the processor cannot foresee. Every other round
 * halves what is left, so that there are few rounds however the ids lie, sorted or not. */
static const struct range_record *range_of(const struct records *ranges, uint32_t host_id)
{
    uint32_t low = 0, high = ranges->capacity - 1;
    const struct range_record *found = record_at(ranges, low), *last = record_at(ranges, high);
    uint32_t from = LOAD(found->host_first), to = LOAD(last->host_first);

    if (from > host_id)
        return NULL;
    if (to <= host_id)
        return last;
    /* The range at low starts at `from`, at or below the id; the one at high starts at `to`, above it. */
    for (bool guess = true; high - low > 1; guess = !guess) {
        uint32_t step = (high - low) / 2;

        if (guess) {
            step = (uint32_t)((uint64_t)(host_id - from) * (high - low) / (to - from));
            step += step == 0;
        }

        const struct range_record *range = record_at(ranges, low + step);
        const uint32_t first = LOAD(range->host_first);

        if (first > host_id) {
            high = low + step;
            to = first;
            continue;
        }
        low += step;
        from = first;
        found = range;
        if (host_id - first < LOAD(range->length))
            break;
    }
    return found;
}

enum answer_result slot_find_id(const struct slot *slot, bool group, uint32_t host_id, uint32_t *machine,
                                uint32_t *inside_id)
{
    struct records ranges;

    if (group ? !OPEN(slot, gid_ranges, struct range_record, &ranges)
              : !OPEN(slot, uid_ranges, struct range_record, &ranges))
        return ANSWER_UNAVAILABLE;

    if (ranges.capacity == 0)
        return ANSWER_UNKNOWN;

    const struct range_record *range = range_of(&ranges, host_id);

    if (range == NULL)
        return ANSWER_UNKNOWN;

    const uint32_t first = LOAD(range->host_first);
    const uint32_t inside_first = LOAD(range->inside_first);

    if (first > host_id)
        return ANSWER_UNAVAILABLE; /* it moved under us */
    if (host_id - first >= LOAD(range->length))
        return ANSWER_UNKNOWN;
    if (inside_first > ID_LAST - (host_id - first))
        return ANSWER_UNAVAILABLE;
    *machine = LOAD(range->machine);
    *inside_id = inside_first + (host_id - first);
    return ANSWER_FOUND;
}

static bool is_inside(uint32_t inside_first, uint32_t length, uint32_t inside_id)
{
    return inside_first <= inside_id && inside_id - inside_first < length;
}

static enum answer_result give_host_id(uint32_t host_first, uint32_t distance, uint32_t *host_id)
{
    if (host_first > ID_LAST - distance)
        return ANSWER_UNAVAILABLE;
    *host_id = host_first + distance;
    return ANSWER_FOUND;
}

/* From the machine's further extents. */
static enum answer_result further_host_id(const struct slot *slot, bool group, uint32_t machine, uint32_t inside_id,
                                          uint32_t *host_id)
{
    const struct detail_record *details = details_at(slot, machine);
    struct records extents;

    if (details == NULL || !OPEN(slot, extents, struct extent_record, &extents))
        return ANSWER_UNAVAILABLE;

    uint32_t index = group ? LOAD(details->more_gid_extents) : LOAD(details->more_uid_extents);

    /* A chain cannot be longer than its pool: one that is, is a circle. */
    for (uint32_t steps = 0; index != 0; steps++) {
        if (index >= extents.capacity || steps >= extents.capacity)
            return ANSWER_UNAVAILABLE;

        const struct extent_record *extent = record_at(&extents, index);
        const uint32_t inside_first = LOAD(extent->inside_first);

        if (is_inside(inside_first, LOAD(extent->length), inside_id))
            return give_host_id(LOAD(extent->host_first), inside_id - inside_first, host_id);
        index = LOAD(extent->next);
    }
    return ANSWER_UNKNOWN;
}

enum answer_result slot_host_id(const struct slot *slot, bool group, uint32_t machine, uint32_t inside_id,
                                uint32_t *host_id)
{
    const struct machine_record *record = machine_at(slot, machine);

    if (record == NULL)
        return ANSWER_UNAVAILABLE;

    const uint32_t inside_first = LOAD(record->inside_first);

    if ((LOAD(record->extent_kinds) & (group ? EXTENT_OF_GIDS : EXTENT_OF_UIDS)) != 0 &&
        is_inside(inside_first, LOAD(record->length), inside_id))
        return give_host_id(LOAD(record->host_first), inside_id - inside_first, host_id);
    return further_host_id(slot, group, machine, inside_id, host_id);
}

enum answer_result slot_copy_name(const struct slot *slot, uint32_t machine, char name[68])
{
    struct text text;

    if (!find_text(slot, machine, NAME_MACHINE, &text) || !copy_text(name, &text) || name[0] == '\0')
        return ANSWER_UNAVAILABLE;
    return ANSWER_FOUND;
}

enum answer_result slot_copy_label(const struct slot *slot, uint32_t machine, char label[20])
{
    struct text text;

    return find_text(slot, machine, NAME_LABEL, &text) && copy_text(label, &text) ? ANSWER_FOUND : ANSWER_UNAVAILABLE;
}

enum answer_result slot_copy_addresses(const struct slot *slot, uint32_t machine, struct host_answer *answer)
{
    const struct machine_record *record = machine_at(slot, machine);
    struct records addresses;

    if (record == NULL || !OPEN(slot, addresses, struct address_record, &addresses))
        return ANSWER_UNAVAILABLE;

    const uint32_t reverse = LOAD(record->inet_reverse);
    uint32_t count = LOAD(record->inet_count);

    if (count > INET_AT_HAND)
        return ANSWER_UNAVAILABLE;
    for (uint32_t i = 0; i < count; i++) {
        answer->addresses[i] = (struct answer_address){AF_INET, 0, (reverse >> i & 1) * ADDRESS_REVERSE, {0}};
        memcpy(answer->addresses[i].bytes, record->inet + 4 * i, 4);
    }
    for (uint32_t index = LOAD(record->more_addresses); index != 0; count++) {
        if (index >= addresses.capacity || count >= MACHINE_ADDRESSES_MAX)
            return ANSWER_UNAVAILABLE;

        const struct address_record *address = record_at(&addresses, index);
        struct answer_address *copy = &answer->addresses[count];

        copy->family = LOAD(address->family);
        copy->scope_id = LOAD(address->scope_id);
        copy->flags = LOAD(address->flags);
        memcpy(copy->bytes, address->bytes, sizeof copy->bytes);
        if (copy->family != AF_INET && copy->family != AF_INET6)
            return ANSWER_UNAVAILABLE;
        index = LOAD(address->next);
    }
    answer->address_count = count;
    return ANSWER_FOUND;
}

static bool is_address(const struct answer_address *address, uint32_t family, const uint8_t *bytes)
{
    return address->family == family && (address->flags & ADDRESS_REVERSE) != 0 &&
           memcmp(address->bytes, bytes, family == AF_INET ? 4 : 16) == 0;
}

enum answer_result slot_find_address(const struct slot *slot, uint32_t family, const uint8_t *bytes,
                                     struct host_answer *answer, uint32_t *machine)
{
    const uint32_t hash = table_hash_address(family, bytes);
    struct records keys;

    if (!OPEN_KEYS(slot, address_keys, &keys))
        return ANSWER_UNAVAILABLE;
    *machine = KEY_MACHINES; /* none */
    for (uint32_t step = 0, key; (key = next_key(&keys, hash, &step)) != 0;) {
        if (machine_of(key) == *machine)
            continue; /* its addresses have been looked at: a guest can choose many of hashes that begin alike */
        *machine = machine_of(key);
        if (slot_copy_addresses(slot, *machine, answer) != ANSWER_FOUND)
            return ANSWER_UNAVAILABLE;
        for (uint32_t i = 0; i < answer->address_count; i++)
            if (is_address(&answer->addresses[i], family, bytes)) {
                answer->addresses[0] = answer->addresses[i];
                answer->address_count = 1;
                return ANSWER_FOUND;
            }
    }
    return ANSWER_UNKNOWN;
}
