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
 *     details       = struct detail_record ...         ; so a slot of zeros is a valid, empty slot
 *     addresses     = struct address_record ...
 *     extents       = struct extent_record ...
 *     name-keys     = uint32 ...                       ; see Keys: from a name's hash to the machine
 *     address-keys  = uint32 ...                       ; from an address' hash to the machine
 *     uid-ranges    = struct range_record ...          ; sorted by host_first, disjoint: from the host's id to the machine
 *     gid-ranges    = struct range_record ...
 *
 * Every field is a 32-bit number in the host's byte order, or bytes in groups of four: no padding, no pointers, the same
 * for a 32-bit program on a 64-bit host. Offsets count bytes from the start of the slot. Behind strings are zeros, one at
 * least, to the end of the field.
 *
 * A machine's record holds what most look-ups give of most machines, in one line of a processor's cache: its name, its
 * first IPv4 addresses, its first ids. With ten thousand machines, waiting for memory is most of what a look-up takes,
 * and lines that are not touched leave room for those that are. The details of machine m, of the same index, are what
 * few ask for or few have; other addresses and extents are chained. Such a look-up waits for memory once more.
 *
 * Keys. A section of keys is a hash table with open addresses: a power of two of them, of which a key has the one that
 * is its hash modulo that number or, as others have this, the first free one behind; the first follows on the last. A
 * search ends at a key of 0, which is free. A key is
 *
 *     the hash's highest byte << 24 | machine << KEY_MACHINE_AT | enum name_kind, 0 for an address
 *
 * so that a search for what is not there rarely reads anything else.
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

#define TABLE_LAYOUT 2           /* also in the file's name: table-2 */
#define TABLE_PAGE 4096
#define TABLE_SLOTS 2
#define TABLE_SIZE_MAX 1073741824 /* 1 GiB: what a 32-bit process can be asked to map; a million machines */

#define MACHINE_NAME_MAX 64      /* HOST_NAME_MAX: a machine's name is a host name */
#define MACHINE_LABEL_MAX 17     /* vu- + 17 + - + 10 digits = 31 characters */
#define MACHINE_ADDRESSES_MAX 128 /* of one machine, so that an answer fits a page, a packet and a small stack */
#define USER_NAME_MAX 31         /* systemd's strict rule for user names, from utmp's UT_NAMESIZE of 32 */
#define HOST_ID_FIRST 65536      /* ids below are the host's own, and never a machine's */

#define INET_AT_HAND 3           /* addresses in a machine's record */
#define NAME_AT_HAND 31          /* characters there */
#define KEY_MACHINE_AT 2         /* see Keys: below are two bits of enum name_kind */
#define KEY_MACHINES 4194304     /* above, 22 bits: more than a table has room for */

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
    uint32_t capacity;           /* records, record 0 included; of ranges, which have none, those in use */
};

struct slot_header {
    struct section machines;
    struct section details;
    struct section addresses;
    struct section extents;
    struct section name_keys;
    struct section address_keys;
    struct section uid_ranges;
    struct section gid_ranges;
};

enum extent_kinds {
    EXTENT_OF_UIDS = 1,
    EXTENT_OF_GIDS = 2
};

struct machine_record {
    uint8_t inet_count;          /* of `inet` in use */
    uint8_t inet_reverse;        /* 1 << i: inet[i] is ADDRESS_REVERSE */
    uint8_t extent_kinds;        /* enum extent_kinds, of the one extent here: mostly both; 0: there is none */
    uint8_t zero;
    uint8_t inet[12];            /* the first INET_AT_HAND addresses, as far as these are AF_INET and not ADDRESS_SCOPED */
    uint32_t more_addresses;     /* the next one, in the order to be given */
    uint32_t inside_first;
    uint32_t length;             /* ids; not 0 */
    uint32_t host_first;
    char name[32];               /* as registered; empty: it is longer, and among the details */
};

struct detail_record {
    uint32_t more_uid_extents;   /* the next one */
    uint32_t more_gid_extents;
    char label[20];              /* stands for the name in user names; empty where the name always serves */
    char alias[68];              /* another name of the host, in lower case; empty: none */
    char name[68];               /* as registered, if it is longer than NAME_AT_HAND; at most MACHINE_NAME_MAX */
};

enum address_flags {
    ADDRESS_SCOPED = 1,          /* link-local: of use only with its scope_id, so only gethostbyname4_r gives it */
    ADDRESS_REVERSE = 2          /* has a key: gethostbyaddr answers it */
};

struct address_record {
    uint32_t next;               /* of the same machine */
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

enum name_kind {
    NAME_MACHINE = 1,            /* the machine's own name: hosts and users */
    NAME_ALIAS = 2,              /* another name of the machine: hosts only */
    NAME_LABEL = 3               /* its short label: users only */
};

struct range_record {
    uint32_t host_first;
    uint32_t length;             /* ids; not 0 */
    uint32_t inside_first;
    uint32_t machine;
};

/* FNV-1a over the name in lower case (ASCII), or over the address (four bytes of AF_INET, else sixteen); then a mix, so
 * that the bits that pick a key's place, and those in the key, depend on every byte. */
uint32_t table_hash_name(const char *name, uint32_t length);
uint32_t table_hash_address(uint32_t family, const uint8_t *bytes);

/* The writer's three moves; see Publishing. There is one writer. */
uint32_t table_begin(struct table_header *header);  /* gives the slot to write: 0 or 1 */
void table_commit(struct table_header *header);
void table_retire(struct table_header *header);

/* --- cdef end --- */

#define TABLE_MAGIC "mymachin"

/* ASCII's: not tolower(), which obeys the locale of the program that we are a guest in. */
static inline char lower_case(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 'a' - 'A') : c;
}

_Static_assert(sizeof(struct table_header) == 40, "the layout has no padding");
_Static_assert(sizeof(struct slot_header) == 64, "the layout has no padding");
_Static_assert(sizeof(struct machine_record) == 64, "a line, where a line is 64 bytes");
_Static_assert(sizeof(((struct machine_record *)0)->inet) == 4 * INET_AT_HAND, "one limit, written twice");
_Static_assert(sizeof(((struct machine_record *)0)->name) == NAME_AT_HAND + 1, "one limit, written twice");
_Static_assert(sizeof(struct detail_record) == 164, "the layout has no padding");
_Static_assert(sizeof(struct address_record) == 32, "the layout has no padding");
_Static_assert(sizeof(struct extent_record) == 16, "the layout has no padding");
_Static_assert(sizeof(struct range_record) == 16, "the layout has no padding");

#endif
