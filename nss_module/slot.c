/* SPDX-License-Identifier: MIT */
#include "slot.h"

#include <string.h>
#include <sys/socket.h>

/* One load, which the compiler may neither split nor repeat: what was checked is what is used. */
#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

#define CACHE_LINE 64        /* bytes, on most processors; on others, some lines are asked for twice, or not */

struct records {
    const uint8_t *first;
    uint32_t capacity;
    uint32_t size;           /* of one record */
};

/* Inline: with the record's size at hand it is a few instructions, and each look-up opens half a dozen sections. */
static inline __attribute__((always_inline)) bool open_section(const struct slot *slot, size_t section_offset,
                                                               uint32_t record_size, struct records *records)
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

/* The first index of a chain. No buckets at all: a slot of zeros, which is empty. */
static bool bucket_head(const struct records *buckets, uint32_t hash, uint32_t *index)
{
    const uint32_t mask = buckets->capacity - 1;

    *index = 0;
    if (buckets->capacity == 0)
        return true;
    if ((buckets->capacity & mask) != 0)
        return false;
    *index = LOAD(*(const uint32_t *)record_at(buckets, hash & mask));
    return true;
}

/* Asks for the lines of the processor's cache that these records lie in, and does not wait for them. Nothing is read,
 * so it matters to no answer whether they are the right ones. (Inline: gcc takes a function that does only this for one
 * that does nothing, and leaves out the call.) */
static inline __attribute__((always_inline)) void fetch(const struct records *records, uint32_t index, uint32_t count)
{
    if (index >= records->capacity || count > records->capacity - index)
        return;

    const uint8_t *at = record_at(records, index), *last = at + (size_t)count * records->size - 1;

    for (; at < last; at += CACHE_LINE)
        __builtin_prefetch(at);
    __builtin_prefetch(last);
}

/* What a name leads to lies at places that follow from the name's own, where the writer had the choice: table.h,
 * Places. So all of it is on its way while the name is compared, instead of one thing after the other. */
static inline __attribute__((always_inline)) void fetch_places(const struct slot *slot, uint32_t name, unsigned kinds)
{
    struct records machines, addresses, extents;

    if (OPEN(slot, machines, struct machine_record, &machines))
        fetch(&machines, name, 1);
    if (kinds == HOST_KINDS && OPEN(slot, addresses, struct address_record, &addresses))
        fetch(&addresses, name * ADDRESSES_AT, ADDRESSES_AT);
    if (kinds != HOST_KINDS && OPEN(slot, extents, struct extent_record, &extents))
        fetch(&extents, name * EXTENTS_AT, EXTENTS_AT);
}

enum answer_result slot_find_name(const struct slot *slot, const char *name, uint32_t length, unsigned kinds,
                                  uint32_t *machine)
{
    const uint32_t hash = table_hash_name(name, length);
    struct records buckets, names;
    uint32_t index;

    if (!OPEN(slot, name_buckets, uint32_t, &buckets) || !OPEN(slot, names, struct name_record, &names))
        return ANSWER_UNAVAILABLE;
    if (!bucket_head(&buckets, hash, &index))
        return ANSWER_UNAVAILABLE;

    /* A chain cannot be longer than its pool: one that is, is a circle. */
    for (uint32_t steps = 0; index != 0; steps++) {
        if (index >= names.capacity || steps >= names.capacity)
            return ANSWER_UNAVAILABLE;

        fetch_places(slot, index, kinds);

        const struct name_record *record = record_at(&names, index);
        const uint32_t kind = LOAD(record->kind);

        if (LOAD(record->hash) == hash && kind < 32 && (kinds >> kind & 1) != 0 &&
            memcmp(record->name, name, length + 1) == 0) {
            *machine = LOAD(record->machine);
            return ANSWER_FOUND;
        }
        index = LOAD(record->next);
    }
    return ANSWER_UNKNOWN;
}

/* The copy is checked, not the original: the writer cannot take the zero away again behind the check. */
static bool copy_string(char *copy, const char *original, size_t size, size_t longest)
{
    memcpy(copy, original, size);
    return strnlen(copy, size) <= longest;
}

enum answer_result slot_list_names(const struct slot *slot, struct table_name *listed, uint32_t capacity, uint32_t *count)
{
    struct records names;

    *count = 0;
    if (!OPEN(slot, names, struct name_record, &names))
        return ANSWER_UNAVAILABLE;
    for (uint32_t index = 1; index < names.capacity; index++) {
        const struct name_record *record = record_at(&names, index);
        const uint32_t kind = LOAD(record->kind);

        if (kind >= 32 || (HOST_KINDS >> kind & 1) == 0)
            continue;
        if (*count < capacity &&
            !copy_string(listed[*count].name, record->name, sizeof record->name, MACHINE_NAME_MAX))
            return ANSWER_UNAVAILABLE;
        *count += 1;
    }
    return ANSWER_FOUND;
}

static bool copy_address(const struct address_record *record, struct answer_address *address)
{
    address->family = LOAD(record->family);
    address->scope_id = LOAD(record->scope_id);
    address->flags = LOAD(record->flags);
    memcpy(address->bytes, record->bytes, sizeof address->bytes);
    return address->family == AF_INET || address->family == AF_INET6;
}

enum answer_result slot_find_address(const struct slot *slot, uint32_t family, const uint8_t *bytes,
                                     struct answer_address *address, uint32_t *machine)
{
    const uint32_t hash = table_hash_address(family, bytes);
    struct records buckets, addresses;
    uint32_t index;

    if (!OPEN(slot, address_buckets, uint32_t, &buckets) || !OPEN(slot, addresses, struct address_record, &addresses))
        return ANSWER_UNAVAILABLE;
    if (!bucket_head(&buckets, hash, &index))
        return ANSWER_UNAVAILABLE;

    for (uint32_t steps = 0; index != 0; steps++) {
        if (index >= addresses.capacity || steps >= addresses.capacity)
            return ANSWER_UNAVAILABLE;

        const struct address_record *record = record_at(&addresses, index);

        if (LOAD(record->hash) == hash && LOAD(record->family) == family &&
            (LOAD(record->flags) & ADDRESS_REVERSE) != 0 &&
            memcmp(record->bytes, bytes, family == AF_INET ? 4 : 16) == 0) {
            *machine = LOAD(record->machine);
            return copy_address(record, address) ? ANSWER_FOUND : ANSWER_UNAVAILABLE;
        }
        index = LOAD(record->next_in_bucket);
    }
    return ANSWER_UNKNOWN;
}

/* The range that the id is in, else one that starts at or below it; NULL: none does.
 *
 * Machines' ids mostly lie one by one, or evenly at random, so where an id lies between the first and the last tells
 * where its range does: one guess instead of a dozen branches that the processor cannot foresee. Every other round
 * halves what is left, so that there are few rounds however the ids lie, sorted or not. */
static const struct range_record *range_of(const struct records *ranges, uint32_t count, uint32_t host_id)
{
    uint32_t low = 0, high = count - 1;
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

    const struct slot_header *header = (const void *)slot->base;
    uint32_t count = group ? LOAD(header->gid_range_count) : LOAD(header->uid_range_count);

    if (count > ranges.capacity)
        return ANSWER_UNAVAILABLE;
    if (count == 0)
        return ANSWER_UNKNOWN;

    const struct range_record *range = range_of(&ranges, count, host_id);

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

static const struct machine_record *machine_at(const struct slot *slot, uint32_t machine)
{
    struct records machines;

    if (!OPEN(slot, machines, struct machine_record, &machines) || machine == 0 || machine >= machines.capacity)
        return NULL;
    return record_at(&machines, machine);
}

enum answer_result slot_host_id(const struct slot *slot, bool group, uint32_t machine, uint32_t inside_id,
                                uint32_t *host_id)
{
    const struct machine_record *record = machine_at(slot, machine);
    struct records extents;

    if (record == NULL || !OPEN(slot, extents, struct extent_record, &extents))
        return ANSWER_UNAVAILABLE;

    uint32_t index = group ? LOAD(record->first_gid_extent) : LOAD(record->first_uid_extent);

    for (uint32_t steps = 0; index != 0; steps++) {
        if (index >= extents.capacity || steps >= extents.capacity)
            return ANSWER_UNAVAILABLE;

        const struct extent_record *extent = record_at(&extents, index);
        const uint32_t inside_first = LOAD(extent->inside_first);

        if (inside_first <= inside_id && inside_id - inside_first < LOAD(extent->length)) {
            const uint32_t host_first = LOAD(extent->host_first);

            if (host_first > ID_LAST - (inside_id - inside_first))
                return ANSWER_UNAVAILABLE;
            *host_id = host_first + (inside_id - inside_first);
            return ANSWER_FOUND;
        }
        index = LOAD(extent->next);
    }
    return ANSWER_UNKNOWN;
}

enum answer_result slot_copy_names(const struct slot *slot, uint32_t machine, char name[68], char label[20])
{
    const struct machine_record *record = machine_at(slot, machine);

    if (record == NULL || !copy_string(name, record->name, sizeof record->name, MACHINE_NAME_MAX) || name[0] == '\0')
        return ANSWER_UNAVAILABLE;
    if (label != NULL && !copy_string(label, record->label, sizeof record->label, MACHINE_LABEL_MAX))
        return ANSWER_UNAVAILABLE;
    return ANSWER_FOUND;
}

enum answer_result slot_copy_addresses(const struct slot *slot, uint32_t machine, struct host_answer *answer)
{
    const struct machine_record *record = machine_at(slot, machine);
    struct records addresses;
    uint32_t count = 0;

    if (record == NULL || !OPEN(slot, addresses, struct address_record, &addresses))
        return ANSWER_UNAVAILABLE;

    for (uint32_t index = LOAD(record->first_address); index != 0; count++) {
        if (index >= addresses.capacity || count >= MACHINE_ADDRESSES_MAX)
            return ANSWER_UNAVAILABLE;

        const struct address_record *address = record_at(&addresses, index);

        if (LOAD(address->machine) != machine || !copy_address(address, &answer->addresses[count]))
            return ANSWER_UNAVAILABLE;
        index = LOAD(address->next);
    }
    answer->address_count = count;
    return ANSWER_FOUND;
}
