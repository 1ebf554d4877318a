/* SPDX-License-Identifier: MIT */
#include "mutate.h"
#include "table.h"

#include <string.h>

static uint64_t state;

void pick_from(unsigned seed)
{
    state = seed * 0x9e3779b97f4a7c15u + 1;
}

uint32_t pick(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return below == 0 ? 0 : (uint32_t)(state >> 33) % below;
}

uint32_t odd_number(uint32_t count)
{
    const uint32_t numbers[] = {0, 1, 2, 3, 4, count - 1, count, count + 1, 2 * count, count / 2, 0x7fffffff, 0x80000000,
                                0xfffffffe, 0xffffffff, 0xffffffff - count, 0x92492493}; /* times 28 it is 4 again */

    switch (pick(4)) {
    case 0:
        return pick(64);
    case 1:
        return pick(count);
    default:
        return numbers[pick(sizeof numbers / sizeof numbers[0])];
    }
}

uint32_t odd_id(void)
{
    const uint32_t ids[] = {0, 1, 5, 65534, 65535, 65536, 1048575, 1048576, 1048577, 2097152, 3145728, 4294967290,
                            4294967293, 4294967294, 4294967295};

    return ids[pick(sizeof ids / sizeof ids[0])] + (pick(4) == 0 ? pick(5) - 2 : 0);
}

uint32_t odd_size(void)
{
    const uint32_t most[] = {8, 24, 64, 200, 4096};

    return pick(most[pick(sizeof most / sizeof most[0])]);
}

void odd_string(char *text, uint32_t size)
{
    static const char *const known[] = {"web", "db.example.org", "Db.example.org", "www.example", "db-417", "vu-web-0",
                                        "vg-web-0", "vu-db-417-5", "vu-web-01", "vu-0", "", ".", "a.b", "vm-1"};
    static const uint8_t longest[] = {MACHINE_LABEL_MAX - 1, NAME_AT_HAND - 1, MACHINE_NAME_MAX - 1};
    const char *chosen;

    switch (pick(7)) {
    case 0:
        memset(text, 'w', size);            /* no end */
        break;
    case 1:
        memset(text, 0, size);
        memset(text, 'w', pick(size + 1));  /* any length */
        break;
    case 2:
        text[pick(size)] = "\0.-A0\x80"[pick(6)];
        break;
    case 3:
        text[pick(size)] = (char)pick(256);
        break;
    case 4: {
        const uint32_t length = longest[pick(sizeof longest / sizeof longest[0])] + pick(4); /* about the longest */

        memset(text, 0, size);
        memset(text, '0' + (int)pick(2), length < size ? length : size);
        break;
    }
    default:
        chosen = known[pick(sizeof known / sizeof known[0])];
        memset(text, 0, size);
        memcpy(text, chosen, strlen(chosen) < size ? strlen(chosen) : size);
    }
}
