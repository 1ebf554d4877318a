/* SPDX-License-Identifier: MIT */
/*
 * The table that mymachinesd publishes and everybody else reads.
 *
 * This header is the specification. The text between the two marks is given, as it stands, to cffi's cdef() by
 * build_nss.py, and the same text is compiled into the shim: writer and readers cannot disagree about a field.
 * (cdef takes integer #defines, enums, structs and functions; what it rejects stays outside the marks.)
 *
 * Grammar
 *
 *     file          = header-page slot slot            ; each a multiple of TABLE_PAGE bytes
 *     header-page   = struct table_header, zeros
 *     slot          = struct slot_header, then the eight sections that it names, in any order
 *     machines      = struct machine_record ...        ; record 0 of each pool is nobody: an index of 0 ends a chain,
 *     names         = struct name_record ...           ; so a slot of zeros is a valid, empty slot
 *     name-buckets  = uint32 ...                       ; a power of two of them; index of the first name of a chain
 *     addresses     = struct address_record ...
 *     address-buckets = uint32 ...                     ; a power of two; first address of a chain
 *     extents       = struct extent_record ...         ; chains by machine: from the id inside to the host's
 *     uid-ranges    = struct range_record ...          ; sorted by host_first, disjoint: from the host's id to the machine
 *     gid-ranges    = struct range_record ...
 *
 * Every field is a 32-bit number in the host's byte order or a byte array of a multiple of four: no padding, no
 * pointers, the same for a 32-bit program on a 64-bit host. Offsets count bytes from the start of the slot.
 *
 * Places. Where a record lies is the writer's choice, and nothing but an index says where. But the writer prefers, for
 * machine m: record m for its own name, records ADDRESSES_AT * m and following for its first ADDRESSES_AT addresses,
 * record EXTENTS_AT * m for its first uid extent and the next one for its first gid extent; and it begins each section
 * where a line of the processor's cache begins. Where such a record is taken, or more are needed, others serve. So a
 * reader who comes from a name can have the processor fetch all of that at once: with ten thousand machines, whose
 * table is in no cache, it waits twice instead of four times.
 *
 * Publishing. The writer changes the slot that `done` does not name, then moves `done`:
 *
 *     begun += 1; release fence; ... stores into slot (done + 1) & 1 ...; store-release done = begun
 *
 * A reader load-acquires `done`, reads slot done & 1, and believes what it copied only if, after an acquire fence,
 * begun - done < TABLE_SLOTS: the writer then has at most begun on the other slot. A writer killed half-way leaves
 * begun = done + 1, which harms no reader; its successor rewrites that slot whole and does not count begun up again.
 *
 * The writer wakes whoever sleeps on `done` (futex(2), shared, read-only maps may wait) after each publication.
 *
 * `retired` is set once and never cleared: this file has a successor, or its daemon has gone in good order. A reader
 * then looks at the path again before it answers. A published file is never truncated and has no holes.
 */
#ifndef MYMACHINES_TABLE_H
#define MYMACHINES_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* --- cdef begin --- */

#define TABLE_LAYOUT 1           /* also in the file's name: table-1 */
#define TABLE_PAGE 4096
#define TABLE_SLOTS 2
#define TABLE_SIZE_MAX 1073741824 /* 1 GiB: what a 32-bit process can be asked to map; some 400,000 machines */

#define MACHINE_NAME_MAX 64      /* HOST_NAME_MAX: a machine's name is a host name */
#define MACHINE_LABEL_MAX 17     /* vu- + 17 + - + 10 digits = 31 characters */
#define MACHINE_ADDRESSES_MAX 128 /* of one machine, so that an answer fits a page, a packet and a small stack */
#define USER_NAME_MAX 31         /* systemd's strict rule for user names, from utmp's UT_NAMESIZE of 32 */
#define HOST_ID_FIRST 65536      /* ids below are the host's own, and never a machine's */

#define ADDRESSES_AT 3           /* see Places */
#define EXTENTS_AT 2

struct table_header {
    uint8_t magic[8];            /* TABLE_MAGIC */
    uint32_t layout;             /* TABLE_LAYOUT */
    uint32_t file_size;          /* bytes: header page and both slots */
    uint32_t slot_offset[2];     /* bytes from the start of the file */
    uint32_t slot_size;          /* bytes, of each slot */
    uint32_t begun;              /* publications begun */
    uint32_t done;               /* publications done; done & 1 is the slot to read */
    uint32_t retired;            /* not 0: look at the path again */
};

struct section {
    uint32_t offset;             /* bytes from the start of the slot */
    uint32_t capacity;           /* records, record 0 included */
};

struct slot_header {
    struct section machines;
    struct section names;
    struct section name_buckets;
    struct section addresses;
    struct section address_buckets;
    struct section extents;
    struct section uid_ranges;
    struct section gid_ranges;
    uint32_t uid_range_count;    /* in use, from record 0 on: ranges are an array, not a pool */
    uint32_t gid_range_count;
};

struct machine_record {
    char name[68];               /* as registered; at most MACHINE_NAME_MAX, a zero behind it */
    char label[20];              /* stands for the name in user names; empty where the name always serves */
    uint32_t first_address;
    uint32_t first_uid_extent;
    uint32_t first_gid_extent;
};

enum name_kind {
    NAME_FREE = 0,
    NAME_MACHINE = 1,            /* the machine's own name: hosts and users */
    NAME_ALIAS = 2,              /* another name of the machine: hosts only */
    NAME_LABEL = 3               /* its short label: users only */
};

struct name_record {
    uint32_t hash;               /* table_hash_name(name) */
    uint32_t kind;               /* enum name_kind */
    uint32_t machine;
    uint32_t next;               /* in the bucket's chain */
    char name[68];               /* in lower case, no trailing dot */
};

enum address_flags {
    ADDRESS_SCOPED = 1,          /* link-local: of use only with its scope_id, so only gethostbyname4_r gives it */
    ADDRESS_REVERSE = 2          /* in the address buckets: gethostbyaddr answers it */
};

struct address_record {
    uint32_t machine;
    uint32_t next;               /* of the same machine, in the order to be given */
    uint32_t hash;               /* table_hash_address(family, bytes) */
    uint32_t next_in_bucket;
    uint32_t family;             /* AF_INET or AF_INET6, Linux' numbers 2 and 10 */
    uint32_t scope_id;           /* the host's ifindex to reach it through, else 0 */
    uint32_t flags;              /* enum address_flags */
    uint8_t bytes[16];           /* network order; the first four for AF_INET */
};

struct extent_record {
    uint32_t inside_first;
    uint32_t length;             /* ids; not 0 */
    uint32_t host_first;
    uint32_t next;               /* of the same machine and kind */
};

struct range_record {
    uint32_t host_first;
    uint32_t length;             /* ids; not 0 */
    uint32_t inside_first;
    uint32_t machine;
};

/* FNV-1a over the name in lower case (ASCII), or over the address (four bytes of AF_INET, else sixteen); then a mix, so
 * that the low bits, which pick the bucket, depend on every byte. */
uint32_t table_hash_name(const char *name, uint32_t length);
uint32_t table_hash_address(uint32_t family, const uint8_t *bytes);

/* The writer's three moves; see Publishing. There is one writer. */
uint32_t table_begin(struct table_header *header);  /* gives the slot to write: 0 or 1 */
void table_commit(struct table_header *header);
void table_retire(struct table_header *header);

/* --- cdef end --- */

#define TABLE_MAGIC "mymachin"

_Static_assert(sizeof(struct table_header) == 40, "the layout has no padding");
_Static_assert(sizeof(struct slot_header) == 72, "the layout has no padding");
_Static_assert(sizeof(struct machine_record) == 100, "the layout has no padding");
_Static_assert(sizeof(struct name_record) == 84, "the layout has no padding");
_Static_assert(sizeof(struct address_record) == 44, "the layout has no padding");
_Static_assert(sizeof(struct extent_record) == 16, "the layout has no padding");
_Static_assert(sizeof(struct range_record) == 16, "the layout has no padding");

#endif
